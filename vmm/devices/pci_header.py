"""The header of a PCI function's configuration space: constants for the functions of guests (vmm/pci/function.py) and
for the host's (vmm/host/pci.py). Source: PCI Local Bus Specification 3.0, "Configuration Space".
"""

from micropython import const

# Ports of configuration mechanism 1
CONFIG_ADDRESS = const(0xCF8)
CONFIG_DATA = const(0xCFC)
CONFIG_ENABLE = const(1 << 31)  # of CONFIG_ADDRESS

# Offsets
VENDOR = const(0x00)
COMMAND = const(0x04)
STATUS = const(0x06)
REVISION = const(0x08)
CACHE_LINE = const(0x0C)
HEADER_TYPE = const(0x0E)
BARS = const(0x10)
SUBSYSTEM = const(0x2C)
ROM = const(0x30)
CAPABILITIES = const(0x34)
INTERRUPT_LINE = const(0x3C)
INTERRUPT_PIN = const(0x3D)

# Command
IO_SPACE = const(1)
MEMORY_SPACE = const(2)
BUS_MASTER = const(4)
INTX_DISABLE = const(0x400)
