"""virtio 1.x: one device a file, independent of transport and address; the ring is in queue.py.

The transports are mmio.py and vmm/pci/virtio.py.
"""
