"""Frames between guests and to the host's network: switches, their ports, offloads, what policies and captures see."""
