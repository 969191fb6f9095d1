"""Configuration space in memory, 4 KiB a function: the enhanced configuration access mechanism.

Reads beyond a function's 256 bytes (or 4 KiB) return all ones. Source: PCI Express Base Specification 3.0, "PCI Express
Enhanced Configuration Access Mechanism (ECAM)"; PCI Firmware Specification 3.0, "MCFG Table".
"""

from micropython import const

SIZE = const(0x8000)  # of a device with its eight functions
_FUNCTION = const(12)  # bits of an offset in the space of one function


class Ecam:
    """The space of the device with this number on bus 0. functions: {address: vmm.pci.function.Function}. An access
    that is not within an aligned dword is split into halves, as a root complex may do.

    Each device has a claim of its own, so that the rest is unclaimed memory, whose exits are fast."""

    def __init__(self, functions, device):
        self._functions = functions
        self._first = device << 3

    def read(self, offset, size):
        if (offset & 3) + size > 4:
            half = size >> 1
            return self.read(offset, half) | self.read(offset + half, half) << 8 * half
        function, at = self._target(offset)
        return function.read(at, size) if function else (1 << 8 * size) - 1

    def write(self, offset, size, value):
        if (offset & 3) + size > 4:
            half = size >> 1
            self.write(offset, half, value & (1 << 8 * half) - 1)
            self.write(offset + half, half, value >> 8 * half)
            return
        function, at = self._target(offset)
        if function:
            function.write(at, size, value)

    def _target(self, offset):
        """(function, offset in its configuration space); (None, 0) for no register."""
        function = self._functions.get(self._first | offset >> _FUNCTION)
        at = offset & (1 << _FUNCTION) - 1
        return (None, 0) if function is None or at >= len(function.config) else (function, at)
