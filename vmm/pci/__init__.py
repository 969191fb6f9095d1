"""PCI of a guest: configuration space and its access, BARs, MSI-X, bridges, virtio's transport."""
