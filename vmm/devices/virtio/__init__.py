"""virtio 1.x: one device a file, which knows neither transport nor address; the ring is in queue.py.

The transports are mmio.py and vmm/pci/virtio.py.
"""
