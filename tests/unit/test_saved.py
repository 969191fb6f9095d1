"""A board of chips under random accesses: its state, as plain data, makes another board answer alike from then on."""

import random
import struct

import pytest
import rings
from clock import Clock

from vmm.bus import MmioBus, PortBus
from vmm.devices import lapic_registers as apic
from vmm.devices.acpi_pm import AcpiPm
from vmm.devices.bochs_vbe import BochsVbe
from vmm.devices.flash import BLOCK, Flash
from vmm.devices.fw_cfg import FwCfg
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
from vmm.devices.virtio.mmio import Mmio
from vmm.devices.virtio.rng import Rng
from vmm.pci.board import ECAM, MEMORY
from vmm.pci.board import Board as PciBoard
from vmm.pci.function import Function
from vmm.pci.virtio import VirtioPci

HZ = 100000000
# (name, offsets, sizes) of what the accesses go to
ACCESSES = (
    ("pit", range(5), (1,)),
    ("rtc", range(2), (1,)),
    ("pm", range(16), (1, 2, 4)),
    ("keyboard", (0, 4), (1,)),
    ("port92", (0,), (1,)),
    ("cf9", (0,), (1,)),
    ("uart", range(8), (1,)),
    ("vga", range(27), (1,)),
    ("vbe", (0, 1), (1, 2)),
    ("pic", range(6), (1,)),
    ("ioapic", (0, 0x10, 0x40), (4,)),
    ("hpet", range(0, 0x160, 4), (4, 8)),
    ("lapic", range(0x20, 0x400, 16), (4,)),
    ("pci", (0xCF8,), (4,)),
    ("pci", (0xCFC, 0xCFE), (1, 2, 4)),
    ("pci", range(0xC000, 0xC008), (1, 2, 4)),
    ("pci", [ECAM + (n << 15) + at for n in range(4) for at in (4, 0x10, 0x20, 0x3C, 0x40, 0x50, 0x9C)], (1, 2, 4)),
    ("pci", [MEMORY + at for at in (0, 8, 0x14, 0x16, 0x20, 0x1000, 0x3000, 0x4000, 0x400C)], (1, 2, 4)),
    ("mmio", (0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80), (4,)),
    ("fw_cfg", range(12), (1, 2, 4)),
    ("flash", (0, 1, 8, BLOCK, BLOCK + 5), (1, 2, 4)),
)


class Registers:
    """A BAR that keeps nothing."""

    def read(self, offset, size):
        return offset

    def write(self, offset, size, value):
        pass


class Pci:
    """The PCI bus as a chip of the board, with a device that has INTx, MSI and 4 KiB of configuration space, and one of
    virtio; an offset is a port or a gpa."""

    def __init__(self, board):
        self.ports, self.memory = PortBus(), MmioBus()
        pci = PciBoard(self.ports, self.memory, board.gsi.line, board.tell("message"), 0x600, board.told, board.told)
        self.host = pci.host
        self.plain = Function(0x1234, 0x5678, 0xFF0000, pin=1)
        self.plain.express()
        self.plain.messages(4)
        self.plain.extended(3, 1, bytes(8), b"\xff")
        self.plain.bar(0, "io", 8, ((0, 8, Registers()),))
        pci.add(self.plain)
        pci.add(VirtioPci(Rng(rings.memory(), board.told), board.tell("message")))
        pci.assign()

    def bus(self, at):
        return self.ports if at < 0x10000 else self.memory

    def read(self, at, size):
        return self.bus(at).read(at, size)

    def write(self, at, size, value):
        self.bus(at).write(at, size, value)

    def save(self):
        return self.host.save()

    def load(self, state):
        self.host.load(state)
        self.host.resume()


class Kept:
    """A flash chip and what is in it. That reads come past it, is lazy, and no state."""

    def __init__(self, board):
        self.data = bytearray(2 * BLOCK)
        self.chip = Flash(self.data, board.told, board.tell("changed"), board.tell("ended"), board.told)
        self.read, self.write = self.chip.read, self.chip.write

    def save(self):
        return {"chip": self.chip.save(), "data": bytes(self.data)}

    def load(self, state):
        self.data[:] = state["data"]
        self.chip.load(state["chip"])


class Board:
    def __init__(self, ticks=0):
        self.clock = clock = Clock(HZ, ticks)
        self.out = []  # what the board has told the outside
        self.lapic = Lapic(bytearray(apic.SIZE), clock, 0, eoi_broadcast=self.broadcast, send=self.tell("send"))
        self.ioapic = IoApic(self.lapic.receive)
        self.gsi = Gsi(self.ioapic, self.lapic)
        self.pic = self.gsi.pic = I8259(self.gsi.intr)
        self.pit = I8254(self.gsi.line(0), clock, self.tell("speaker"))
        self.gsi.when_unmasked(self.pit.unmasked)
        self.rtc = Mc146818(self.gsi.line(8), clock, 1709164798)
        self.pm = AcpiPm(self.gsi.line(9), clock, self.tell("off"), self.tell("sleep"))
        self.keyboard = I8042(self.gsi.line(1), self.gsi.line(12), self.tell("reset"), self.tell("a20"), mouse=True)
        self.port92 = Port92(self.tell("reset"), self.tell("a20"))
        self.cf9 = ResetCf9(self.tell("reset"))
        self.uart = Uart16550(lambda byte: True, self.gsi.line(4))
        self.vga = Vga(clock)
        self.vbe = self.vga.vbe = BochsVbe(16 << 20, self.tell("clear"), self.tell("changed"))
        self.hpet = Hpet(clock, self.gsi.line, self.tell("legacy"))
        self.pci = Pci(self)
        self.mmio = Mmio(Rng(rings.memory(), self.told), self.gsi.line(16))
        self.flash = Kept(self)
        self.fw_cfg = FwCfg(rings.memory(), self.told)
        self.fw_cfg.put(5, struct.pack("<H", 3))
        self.fw_cfg.put_file("etc/one", b"0123456789")

    def told(self, what):
        """Refused, or said: no state."""

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
            "pci",
            "mmio",
            "fw_cfg",
            "flash",
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
        if what == "ring":
            return self.pci.plain.interrupt(value & 1)
        if what == "serve":
            vector = self.lapic.highest()
            if vector >= 0:
                self.lapic.accept(vector)
            extint = self.lapic.extint()
            return vector, extint, self.pic.ack() if extint else None
        return self.clock.advance(value % HZ)


def plain(value):
    if isinstance(value, dict):
        return all(type(key) in (str, int) and plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(plain(item) for item in value)
    return value is None or type(value) in (int, bool, bytes, str)


def steps(rnd, count):
    found = []
    for _ in range(count):
        name, offsets, sizes = rnd.choice(ACCESSES)
        what = rnd.choice(("read", "read", "write", "write", "write", "pass", "serve", "type", "move", "ring"))
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
        if name in ("pci", "mmio", "fw_cfg", "flash"):
            continue  # what has checked states is in them
        for field, value in state[name].items():
            with pytest.raises(ValueError, match=f"has no {field}"):
                chip.load({key: item for key, item in state[name].items() if key != field})
            if isinstance(value, bytes) and (name, field) != ("vga", "palette"):
                with pytest.raises(ValueError, match="is not .* bytes"):
                    chip.load(state[name] | {field: value[:-1]})
    board.load(state)
