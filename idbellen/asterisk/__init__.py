"""Floor 3: Asterisk, through ARI."""
