"""Insight: names and types of what a guest runs, from the guest itself."""
