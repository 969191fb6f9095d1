"""What ties guests to each other: null-modem links, shared memory with doorbells."""
