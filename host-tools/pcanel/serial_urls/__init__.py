"""Where pyserial finds the lines that it does not know itself, by their protocol's name."""
