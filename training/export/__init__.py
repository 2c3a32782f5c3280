"""From trained modules to a model folder, and from there to the Hub."""
