"""Floor 3: what is reached over HTTP. Three interfaces on three addresses, none of which can reach another's."""
