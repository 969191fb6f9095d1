"""Frames between guests and to the host's network: switches, their ports, offloads, packets for policies, captures."""
