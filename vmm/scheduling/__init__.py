"""Who runs when, and a guest's time."""
