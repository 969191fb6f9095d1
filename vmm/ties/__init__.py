"""Connections between guests: null-modem links, shared memory with doorbells."""
