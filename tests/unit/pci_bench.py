"""A PCI bus without a guest, and devices on it."""

import rings

from vmm.bus import MmioBus, PortBus
from vmm.devices.virtio.rng import Rng
from vmm.pci.board import Board
from vmm.pci.function import Function
from vmm.pci.virtio import VirtioPci

SLOT = 2 << 3


class Registers:
    def __init__(self):
        self.seen = []

    def read(self, offset, size):
        return 0x40 + offset

    def write(self, offset, size, value):
        self.seen.append((offset, size, value))


class Bench:
    def __init__(self):
        self.ports, self.memory = PortBus(), MmioBus()
        self.levels = {}
        self.refused = []
        self.sent = []
        self.said = []
        self.board = Board(
            self.ports, self.memory, self.line, self.deliver, 0x600, self.refused.append, self.said.append
        )
        self.ram = rings.memory()

    def line(self, n):
        return lambda level: self.levels.__setitem__(n, level)

    def deliver(self, low, destination):
        self.sent.append((low, destination))
        return 1

    def get(self, address, offset, size=4):
        self.ports.write(0xCF8, 4, 0x80000000 | address << 8 | offset & 0xFC)
        return self.ports.read(0xCFC + (offset & 3), size)

    def put(self, address, offset, value, size=4):
        self.ports.write(0xCF8, 4, 0x80000000 | address << 8 | offset & 0xFC)
        self.ports.write(0xCFC + (offset & 3), size, value)

    def virtio(self):
        self.function = VirtioPci(Rng(self.ram, self.refused.append), self.deliver)
        self.board.add(self.function)
        self.board.assign()
        return self.function


def plain(*bars):
    function = Function(0x1234, 0x5678, 0xFF0000, pin=1)
    for n, (kind, size, device) in enumerate(bars):
        function.bar(n, kind, size, ((0, size, device),))
    return function


def capabilities(b, address=SLOT):
    """{virtio's type or the capability's ID as a negative number: offset}."""
    out, at = {}, b.get(address, 0x34, 1)
    while at:
        identity = b.get(address, at, 1)
        out[b.get(address, at + 3, 1) if identity == 9 else -identity] = at
        at = b.get(address, at + 1, 1)
    return out
