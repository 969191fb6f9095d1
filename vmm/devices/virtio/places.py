"""The addresses and interrupt lines of a guest's virtio-mmio devices, and their description for ACPI."""

import struct

from micropython import const

from vmm.acpi.mmio_aml import AML
from vmm.devices.virtio.mmio import Mmio
from vmm.vtx.x86 import PAGE

FIRST = const(0xFED20000)  # gpa of the first; a page each, behind the HPET's
_LINE = const(16)  # interrupt line of the first; a line each
MOST = const(8)
_HEADER = const(36)


class Places:
    """mmio_bus; line(n): a new source on interrupt line n."""

    def __init__(self, mmio_bus, line):
        self._bus = mmio_bus
        self._line = line
        self.transports = []

    @property
    def last(self):
        """The gpa of the last device."""
        return FIRST + (len(self.transports) - 1) * PAGE

    def plug(self, device):
        """Connect a device at the next address; returns its transport. ValueError if all are taken."""
        n = len(self.transports)
        if n == MOST:
            raise ValueError("all %d places of virtio-mmio are taken" % MOST)
        transport = Mmio(device, self._line(_LINE + n))
        self._bus.claim(FIRST + n * PAGE, PAGE, transport)
        self.transports.append(transport)
        return transport

    def reset(self):
        for transport in self.transports:
            transport.reset()

    def aml(self):
        """AML of each device, from the compiled mmio.asl, for the DSDT: SeaBIOS searches no other table."""
        body = b""
        for n in range(len(self.transports)):
            one = AML[_HEADER:].replace(b"VM00", b"VM0%d" % n)
            for pattern, value in ((0xA1A1A1A1, n), (0xA2A2A2A2, FIRST + n * PAGE), (0xA3A3A3A3, _LINE + n)):
                one = one.replace(struct.pack("<I", pattern), struct.pack("<I", value))
            body += one
        return body

    def save(self):
        """Plain data."""
        return [transport.save() for transport in self.transports]

    def load(self, saved):
        for transport, state in zip(self.transports, saved):
            transport.load(state)

    def resume(self):
        for transport in self.transports:
            transport.resume()
