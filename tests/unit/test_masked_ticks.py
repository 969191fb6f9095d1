"""8254, 8259 and I/O APIC: while counter 0's line is masked everywhere no timer runs for it."""

import pytest
from clock import Clock

from vmm.devices import lapic_registers
from vmm.devices.gsi import Gsi
from vmm.devices.i8254 import I8254
from vmm.devices.i8259 import I8259
from vmm.devices.ioapic import IoApic
from vmm.devices.lapic import Lapic

MS = 100_000


class Board:
    """Interrupts of the 8254 at 1 kHz; `taken` by the 8259, `sent` by the I/O APIC."""

    def __init__(self, mask):
        self.clock = Clock()
        self.lapic = Lapic(bytearray(lapic_registers.SIZE), self.clock)
        self.lapic.write(0xF0, 4, 0x1FF)
        self.sent = 0
        self.ioapic = IoApic(self.message)
        self.gsi = Gsi(self.ioapic, self.lapic)
        self.pic = self.gsi.pic = I8259(self.gsi.intr)
        for at, value in ((0, 0x11), (1, 0x20), (1, 4), (1, 1), (1, mask)):
            self.pic.write(at, 1, value)
        self.pit = I8254(self.gsi.line(0), self.clock, edge=self.gsi.edge(0))
        self.gsi.when_unmasked(self.pit.unmasked)
        for at, value in ((3, 0x34), (0, 0xA9), (0, 4)):
            self.pit.write(at, 1, value)

    def message(self, low, destination):
        self.sent += 1
        return 1

    def taken(self):
        """Whether the 8259s' interrupt could be acknowledged."""
        if not self.pic._state[9]:
            return 0
        assert self.pic.ack() == 0x20
        self.pic.write(0, 1, 0x20)
        return 1


def test_masked():
    b = Board(0xFF)
    b.clock.advance(10 * MS + MS // 2)
    assert b.clock.fired == 1
    before = b.pit.read(0, 1) | b.pit.read(0, 1) << 8
    b.clock.advance(MS // 4)
    after = b.pit.read(0, 1) | b.pit.read(0, 1) << 8
    assert before - after == pytest.approx(1193 // 4, abs=2)  # it counts all the same
    b.pic.write(1, 1, 0xFE)
    assert b.taken() == 1  # the edge that the 8259 has latched
    counted = 0
    for _ in range(1000):
        b.clock.advance(MS // 10)
        counted += b.taken()
    assert counted == pytest.approx(100, abs=1)


def test_masked_in_between():
    b = Board(0xFE)
    b.clock.advance(MS + MS // 2)
    assert b.taken() == 1
    b.pic.write(1, 1, 0xFF)
    fired = b.clock.fired
    b.clock.advance(100 * MS)
    assert b.clock.fired == fired + 1
    b.pic.write(0, 1, 0x11)  # ICW1 forgets the edge, and unmasks
    for value in (0x20, 4, 1):
        b.pic.write(1, 1, value)
    assert b.taken() == 0
    b.clock.advance(MS + MS // 10)
    assert b.taken() == 1


def test_unmasked_at_the_io_apic():
    b = Board(0xFF)
    b.clock.advance(100 * MS)
    assert b.clock.fired == 1 and b.sent == 0
    b.ioapic.write(0, 4, 0x14)
    b.ioapic.write(0x10, 4, 0x40)
    b.clock.advance(100 * MS)
    assert b.sent == pytest.approx(100, abs=1)


def test_programmed_anew_while_masked():
    b = Board(0xFF)
    b.clock.advance(10 * MS)
    for at, value in ((3, 0x34), (0, 0xA9), (0, 4)):
        b.pit.write(at, 1, value)
    b.pic.write(1, 1, 0xFE)
    counted = b.taken()
    for _ in range(100):
        b.clock.advance(MS // 10)
        counted += b.taken()
    assert counted == pytest.approx(10, abs=2)


def test_not_taken():
    """Looks become rare, and no tick is lost."""
    b = Board(0xFE)
    b.clock.advance(100 * MS)
    assert b.clock.fired < 120
    assert b.pit.timer.still_pending()
    counted = 0
    for _ in range(2000):
        counted += b.taken()
        b.clock.advance(MS // 20)
    assert counted == pytest.approx(200, abs=2)
    assert not b.pit.timer.still_pending()
