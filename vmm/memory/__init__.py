"""Memory: the host's pages, a guest's RAM and E820 map, EPT, and the guest's paging."""
