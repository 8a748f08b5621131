"""Floor 0: rules without input, output or a clock of their own; time is an argument."""
