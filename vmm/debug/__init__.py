"""Debuggers of guests: hidden breakpoints, and the gdb stub on COM4 (gdb.py)."""
