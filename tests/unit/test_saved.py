"""A board of chips under random accesses: its state, as plain data, makes another board answer alike from then on."""

import random

import pytest
from clock import Clock

from vmm.devices import lapic_registers as apic
from vmm.devices.acpi_pm import AcpiPm
from vmm.devices.bochs_vbe import BochsVbe
from vmm.devices.gsi import Gsi
from vmm.devices.hpet import Hpet
from vmm.devices.i8042 import I8042
from vmm.devices.i8254 import I8254
from vmm.devices.i8259 import I8259
from vmm.devices.ioapic import IoApic
from vmm.devices.lapic import Lapic
from vmm.devices.mc146818 import Mc146818
from vmm.devices.port92 import Port92
from vmm.devices.reset_cf9 import ResetCf9
from vmm.devices.uart16550 import Uart16550
from vmm.devices.vga import Vga

HZ = 100000000
# (name, offsets, sizes) of what the accesses go to
ACCESSES = (
    ("pit", range(5), (1,)), ("rtc", range(2), (1,)), ("pm", range(16), (1, 2, 4)), ("keyboard", (0, 4), (1,)),
    ("port92", (0,), (1,)), ("cf9", (0,), (1,)), ("uart", range(8), (1,)), ("vga", range(27), (1,)),
    ("vbe", (0, 1), (1, 2)),
    ("pic", range(6), (1,)), ("ioapic", (0, 0x10, 0x40), (4,)), ("hpet", range(0, 0x160, 4), (4, 8)),
    ("lapic", range(0x20, 0x400, 16), (4,)),
)  # fmt: skip


class Board:
    def __init__(self, ticks=0):
        self.clock = clock = Clock(HZ, ticks)
        self.out = []  # what the board has told the outside
        self.lapic = Lapic(bytearray(apic.SIZE), clock, 0, eoi_broadcast=self.broadcast, send=self.tell("send"))
        self.ioapic = IoApic(self.lapic.receive)
        self.gsi = Gsi(self.ioapic, self.lapic)
        self.pic = self.gsi.pic = I8259(self.gsi.intr)
        self.pit = I8254(self.gsi.line(0), clock, self.tell("speaker"))
        self.gsi.heard(self.pit.heard)
        self.rtc = Mc146818(self.gsi.line(8), clock, 1709164798)
        self.pm = AcpiPm(self.gsi.line(9), clock, self.tell("off"), self.tell("sleep"))
        self.keyboard = I8042(self.gsi.line(1), self.gsi.line(12), self.tell("reset"), self.tell("a20"), mouse=True)
        self.port92 = Port92(self.tell("reset"), self.tell("a20"))
        self.cf9 = ResetCf9(self.tell("reset"))
        self.uart = Uart16550(lambda byte: True, self.gsi.line(4))
        self.vga = Vga(clock)
        self.vbe = self.vga.vbe = BochsVbe(16 << 20, self.tell("clear"), self.tell("changed"))
        self.hpet = Hpet(clock, self.gsi.line, self.tell("legacy"))

    def tell(self, what):
        return lambda *values: self.out.append((what, *values))

    def broadcast(self, vector):
        self.ioapic.eoi(vector)

    def chips(self):
        names = (
            "hpet",
            "vga",
            "vbe",
            "pit",
            "rtc",
            "pm",
            "keyboard",
            "port92",
            "cf9",
            "uart",
            "pic",
            "ioapic",
            "lapic",
        )
        return [(name, getattr(self, name)) for name in names]

    def save(self):
        return {name: chip.save() for name, chip in self.chips()}

    def load(self, state):
        for name, chip in self.chips():
            chip.load(state[name])

    def do(self, step):
        """One access or event; what comes back."""
        what, name, offset, size, value = step
        chip = getattr(self, name)
        if what == "read":
            return chip.read(offset, size)
        if what == "write":
            return chip.write(offset, size, value & (1 << 8 * size) - 1)
        if what == "type":
            return self.uart.rx(value & 0xFF)
        if what == "move":
            return self.keyboard.mouse.event(value % 999 - 499, value % 99, value & 3, value & 7)
        if what == "serve":
            vector = self.lapic.highest()
            if vector >= 0:
                self.lapic.accept(vector)
            extint = self.lapic.extint()
            return vector, extint, self.pic.ack() if extint else None
        return self.clock.advance(value % HZ)


def plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return value is None or type(value) in (int, bool, bytes, str)


def steps(rnd, count):
    found = []
    for _ in range(count):
        name, offsets, sizes = rnd.choice(ACCESSES)
        what = rnd.choice(("read", "read", "write", "write", "write", "pass", "serve", "type", "move"))
        value = rnd.getrandbits(64) & rnd.getrandbits(64) if rnd.random() < 0.5 else rnd.getrandbits(8)
        found.append((what, name, rnd.choice(offsets), rnd.choice(sizes), value))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_a_board_that_was_loaded_answers_as_the_saved_one(seed):
    rnd = random.Random(seed)
    one = Board()
    for step in steps(rnd, 120):
        one.do(step)
    state = one.save()
    assert plain(state)
    other = Board(one.clock.ticks)
    for step in steps(rnd, 20):
        if step[0] != "pass":
            other.do(step)  # what it was before does not matter
    other.load(state)
    assert [name for name, got in other.save().items() if got != state[name]] == []
    one.out.clear()
    other.out.clear()
    for step in steps(rnd, 120):
        assert one.do(step) == other.do(step), step
        assert one.out == other.out
    assert one.save() == other.save()


def test_what_is_not_a_state_is_refused():
    board = Board()
    state = board.save()
    for name, chip in board.chips():
        for field, value in state[name].items():
            with pytest.raises(ValueError, match=f"has no {field}"):
                chip.load({key: item for key, item in state[name].items() if key != field})
            if isinstance(value, bytes) and (name, field) != ("vga", "palette"):
                with pytest.raises(ValueError, match="is not .* bytes"):
                    chip.load(state[name] | {field: value[:-1]})
    board.load(state)
