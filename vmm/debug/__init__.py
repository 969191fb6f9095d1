"""Breakpoints, watches and stepping: what a debugger does to a guest, which does not see it."""
