"""The host's PCI functions, by configuration mechanism 1. Source: PCI Local Bus Specification 3.0."""

import cpu
from micropython import const

from vmm.devices.pci_header import (
    BARS,
    COMMAND,
    CONFIG_ADDRESS,
    CONFIG_DATA,
    CONFIG_ENABLE,
    HEADER_TYPE,
    INTERRUPT_LINE,
    REVISION,
)

_CLASS = const(REVISION)  # the dword whose upper three bytes are the class
_SEVERAL_FUNCTIONS = const(1 << 23)  # of the dword with the header type
_BUSES = const(8)


class Function:
    """One function. address: bus << 16 | device << 11 | function << 8."""

    def __init__(self, address):
        self.address = address
        word = self.read(0)
        self.vendor, self.device = word & 0xFFFF, word >> 16

    def read(self, offset):
        """A dword of its configuration space."""
        cpu.outl(CONFIG_ADDRESS, CONFIG_ENABLE | self.address | offset)
        return cpu.inl(CONFIG_DATA)

    def write(self, offset, value):
        cpu.outl(CONFIG_ADDRESS, CONFIG_ENABLE | self.address | offset)
        cpu.outl(CONFIG_DATA, value)

    def enable(self, bits):
        """Set bits of the command register."""
        self.write(COMMAND, self.read(COMMAND) & 0xFFFF | bits)

    def memory(self, n):
        """The hpa in memory BAR n."""
        low = self.read(BARS + 4 * n)
        high = self.read(BARS + 4 * (n + 1)) if low & 6 == 4 else 0
        return low & ~0xF | high << 32

    @property
    def kind(self):
        """Base class << 16 | subclass << 8 | programming interface."""
        return self.read(_CLASS) >> 8

    @property
    def line(self):
        """Its interrupt line, as firmware has set it."""
        return self.read(INTERRUPT_LINE) & 0xFF

    def __repr__(self):
        at = self.address
        return "%02x:%02x.%d %04x:%04x" % (at >> 16, at >> 11 & 31, at >> 8 & 7, self.vendor, self.device)


def functions():
    """All functions of buses 0 to 7."""
    found = []
    for bus in range(_BUSES):
        for device in range(32):
            at = bus << 16 | device << 11
            for number in range(8):
                cpu.outl(CONFIG_ADDRESS, CONFIG_ENABLE | at | number << 8)
                if cpu.inl(CONFIG_DATA) & 0xFFFF == 0xFFFF:
                    if number == 0:
                        break
                    continue
                found.append(Function(at | number << 8))
                if number == 0 and not found[-1].read(HEADER_TYPE & ~3) & _SEVERAL_FUNCTIONS:
                    break
    return found
