"""Scheduling: which guest runs when, and a guest's time."""
