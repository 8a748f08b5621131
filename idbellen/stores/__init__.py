"""Floor 3: where sessions and accounts are kept."""
