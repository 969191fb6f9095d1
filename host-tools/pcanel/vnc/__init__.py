"""A guest's screen by VNC."""
