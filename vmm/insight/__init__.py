"""Insight: names and types of a guest's code and data, from the guest itself."""
