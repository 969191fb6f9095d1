"""Engines: what emulates or runs the machine that the monitor boots on."""
