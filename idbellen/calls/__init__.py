"""Floor 2: the story of a call, told over the ports."""
