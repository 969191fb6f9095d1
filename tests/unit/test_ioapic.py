"""I/O APIC and the routing of lines, with a real local APIC and real 8259s behind them."""

from clock import Clock
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices import lapic_registers as apic
from vmm.devices.gsi import Gsi
from vmm.devices.i8259 import I8259
from vmm.devices.ioapic import EOIR, IOREGSEL, IOWIN, IoApic
from vmm.devices.lapic import Lapic


class Bench:
    def __init__(self):
        self.sent = []
        self.answer = 1
        self.io = IoApic(self.deliver)

    def deliver(self, low, destination):
        self.sent.append((low, destination))
        return self.answer

    def get(self, index):
        self.io.write(IOREGSEL, 4, index)
        return self.io.read(IOWIN, 4)

    def put(self, index, value):
        self.io.write(IOREGSEL, 4, index)
        self.io.write(IOWIN, 4, value)


def test_registers():
    b = Bench()
    assert b.get(1) == 0x00170020
    b.put(0, 0xFFFFFFFF)
    assert b.get(0) == 0x0F000000 and b.get(2) == 0x0F000000
    for pin in range(24):
        assert b.get(16 + 2 * pin) == 0x10000 and b.get(17 + 2 * pin) == 0
    b.put(16, 0xFFFFFFFF)
    assert b.get(16) == 0x1AFFF  # delivery status and remote IRR are read-only
    b.put(17, 0xFFFFFFFF)
    assert b.get(17) == 0xFF000000
    b.put(0x40, 5)
    assert b.get(0x40) == 0 and b.io.read(IOREGSEL, 4) == 0x40


def test_edges():
    b = Bench()
    b.io.set_irq(4, 1)
    b.put(0x18, 0x31)
    assert b.sent == []  # lost while masked
    b.io.set_irq(4, 0)
    assert b.io.set_irq(4, 1) == 1 and b.sent == [(0x31, 0)]
    b.put(0x19, 2 << 24)
    b.io.set_irq(4, 1)
    assert len(b.sent) == 1
    b.io.set_irq(4, 0)
    b.answer = 0
    assert b.io.set_irq(4, 1) == 0 and b.sent[-1] == (0x31, 2)


def test_levels_and_remote_irr():
    b = Bench()
    b.put(0x22, 0xA931)  # pin 9, level, active low, lowest priority, logical
    b.io.set_irq(9, 1)
    assert b.sent == [(0x8931, 0)] and b.get(0x22) == 0xE931
    b.io.eoi(0x30)
    assert len(b.sent) == 1
    b.io.eoi(0x31)
    assert len(b.sent) == 2  # still asserted
    b.io.set_irq(9, 0)
    b.io.write(EOIR, 4, 0x31)
    assert len(b.sent) == 2 and b.get(0x22) == 0xA931
    b.put(0x22, 0x18031)
    b.io.set_irq(9, 1)
    assert len(b.sent) == 2
    b.put(0x22, 0x08031)
    assert len(b.sent) == 3  # unmasking a level sends it
    b.put(0x22, 0x00031)
    assert b.get(0x22) == 0x31  # to edge and back forgets remote IRR
    b.put(0x22, 0x08031)
    assert len(b.sent) == 4


@given(st.randoms(use_true_random=False))
def test_level_lines_are_served_until_they_fall(rnd):
    """Whatever the order of line, mask and EOI: asserted and unmasked means under way, exactly once."""
    b = Bench()
    for pin in range(24):
        b.put(16 + 2 * pin, 0x8000 | 0x40 + pin)
    lines = [0] * 24
    masks = [0] * 24
    busy = [0] * 24
    for _ in range(200):
        pin = rnd.randrange(24)
        what = rnd.randrange(3)
        before = len(b.sent)
        if what == 0:
            lines[pin] = rnd.randrange(2)
            b.io.set_irq(pin, lines[pin])
        elif what == 1:
            masks[pin] = rnd.randrange(2)
            b.put(16 + 2 * pin, masks[pin] << 16 | 0x8000 | 0x40 + pin)
        else:
            busy[pin] = 0
            b.io.eoi(0x40 + pin)
        if lines[pin] and not masks[pin] and not busy[pin]:
            assert b.sent[before:] == [(0x8040 + pin, 0)]
            busy[pin] = 1
        else:
            assert len(b.sent) == before
        assert b.get(16 + 2 * pin) >> 14 & 1 == busy[pin]


class Board:
    def __init__(self):
        self.kicks = 0
        self.clock = Clock()
        self.apic = Lapic(bytearray(apic.SIZE), self.clock, 0, self.kick, eoi_broadcast=self.broadcast)
        self.io = IoApic(self.apic.receive)
        self.gsi = Gsi(self.io, self.apic)
        self.pic = self.gsi.pic = I8259(self.gsi.intr)
        for offset, value in ((0, 0x11), (1, 0x30), (1, 4), (1, 1), (2, 0x11), (3, 0x38), (3, 2), (3, 1)):
            self.pic.write(offset, 1, value)

    def kick(self):
        self.kicks += 1

    def broadcast(self, vector):
        self.io.eoi(vector)

    def route(self, pin, low):
        self.io.write(IOREGSEL, 4, 16 + 2 * pin)
        self.io.write(IOWIN, 4, low)


def test_virtual_wire_and_irq0_on_pin_2():
    b = Board()
    line = b.gsi.line(0)
    b.apic.write(apic.SVR, 4, 0x1FF)
    b.apic.write(apic.LVT_LINT0, 4, 0x700)
    line(1)
    assert b.apic.extint() and b.pic.ack() == 0x30 and not b.apic.extint()
    line(0)
    b.pic.write(1, 1, 0xFF)
    b.route(2, 0x51)
    assert line(1) == 1 and not b.apic.extint() and b.apic.highest() == 0x51
    line(0)
    assert line(1) == 0
    line(0)
    b.apic.accept(0x51)
    assert line(1) == 1


def test_extint_through_pin_0():
    b = Board()
    b.apic.write(apic.SVR, 4, 0x1FF)
    b.route(0, 0x700)
    b.gsi.line(4)(1)
    assert b.apic.extint()
    assert b.pic.ack() == 0x34
    b.apic.extint_taken()
    assert not b.apic.extint()


def test_shared_level_line():
    b = Board()
    b.apic.write(apic.SVR, 4, 0x1FF)
    b.route(20, 0x8061)
    first = b.gsi.line(20)
    second = b.gsi.line(20)
    first(1)
    second(1)
    first(0)
    b.apic.accept(b.apic.highest())
    b.apic.eoi()
    assert b.apic.highest() == 0x61
    second(0)
    b.apic.accept(0x61)
    b.apic.eoi()
    assert b.apic.highest() == -1


def test_lines_that_do_not_exist():
    b = Board()
    for n in (-1, 2, 24):
        try:
            b.gsi.line(n)
        except ValueError:
            continue
        assert False
    b.io.set_irq(24, 1)
    b.io.set_irq(-1, 1)


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Board()
    lines = [b.gsi.line(n) for n in range(24) if n != 2]
    for _ in range(200):
        what = rnd.randrange(4)
        offset = (0, 0x10, 0x40, rnd.randrange(4096))[rnd.randrange(4)]
        if what == 0:
            assert 0 <= b.io.read(offset, 4) < 1 << 32
        elif what == 1:
            b.io.write(offset, (1, 2, 4, 8)[rnd.randrange(4)], rnd.getrandbits(32) & rnd.getrandbits(32))
        elif what == 2:
            lines[rnd.randrange(23)](rnd.randrange(2))
        else:
            b.io.eoi(rnd.getrandbits(8))


def test_its_id_is_what_the_tables_say():
    chip = IoApic(lambda low, destination: 1, 3)
    assert chip.read(IOWIN, 4) == 3 << 24
    chip.write(IOWIN, 4, 0xFFFFFFFF)
    assert chip.read(IOWIN, 4) == 0x0F000000
    chip.reset()
    assert chip.read(IOWIN, 4) == 3 << 24
