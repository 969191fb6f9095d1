"""A guest's screen on the host: what it shows, as a picture."""
