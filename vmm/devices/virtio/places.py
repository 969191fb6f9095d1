"""Where a guest's virtio devices by registers in memory are, and what ACPI says of them."""

import struct

from micropython import const

from vmm.acpi.mmio_aml import AML
from vmm.acpi.tables import table
from vmm.devices.virtio.mmio import Mmio
from vmm.vtx.x86 import PAGE

FIRST = const(0xFED20000)  # a page each, behind the HPET's
_LINE = const(16)  # and a line each
MOST = const(8)
_HEADER = const(36)


class Places:
    """mmio_bus; line(n): a new source on interrupt line n."""

    def __init__(self, mmio_bus, line):
        self._bus = mmio_bus
        self._line = line
        self.transports = []

    def plug(self, device):
        """A device at the next place; returns its transport. ValueError where there is none left."""
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

    def ssdt(self):
        """The compiled mmio.asl, a device for each place that is taken; None where none is."""
        body = b""
        for n in range(len(self.transports)):
            one = AML[_HEADER:].replace(b"VM00", b"VM0%d" % n)
            for pattern, value in ((0xA1A1A1A1, n), (0xA2A2A2A2, FIRST + n * PAGE), (0xA3A3A3A3, _LINE + n)):
                one = one.replace(struct.pack("<I", pattern), struct.pack("<I", value))
            body += one
        return table(b"SSDT", 2, body) if body else None

    def save(self):
        """Plain data."""
        return [transport.save() for transport in self.transports]

    def load(self, saved):
        for transport, state in zip(self.transports, saved):
            transport.load(state)

    def resume(self):
        for transport in self.transports:
            transport.resume()
