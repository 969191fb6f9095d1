"""The registers of a virtio device on PCI: constants for the devices of guests (vmm/pci/virtio.py) and for the drivers
of the host's (vmm/host/virtio.py). Source: virtio 1.2, "Virtio Over PCI Bus".
"""

from micropython import const

VENDOR = const(0x1AF4)
DEVICES = const(0x1040)  # the device ID of kind 0
VENDOR_CAPABILITY = const(0x09)

# Structures, by the capability's cfg_type
COMMON = const(1)
NOTIFY = const(2)
ISR = const(3)
DEVICE = const(4)
CONFIG_ACCESS = const(5)

# Registers of the common structure
FEATURE_SELECT = const(0x00)
FEATURE = const(0x04)
DRIVER_SELECT = const(0x08)
DRIVER_FEATURE = const(0x0C)
CONFIG_VECTOR = const(0x10)
NUM_QUEUES = const(0x12)
STATUS = const(0x14)
GENERATION = const(0x15)
QUEUE_SELECT = const(0x16)
QUEUE_SIZE = const(0x18)
QUEUE_VECTOR = const(0x1A)
QUEUE_ENABLE = const(0x1C)
QUEUE_NOTIFY_OFF = const(0x1E)
QUEUE_ADDRESSES = const(0x20)  # descriptors, driver area, device area: 8 bytes each
QUEUE_ADDRESSES_END = const(0x38)
