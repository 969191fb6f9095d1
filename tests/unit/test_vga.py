"""VGA's registers and vmm/screen.py, which shows the text."""

from clock import Clock
from hypothesis import given
from hypothesis import strategies as st
from support import Memory

from vmm import screen
from vmm.devices.vga import Vga

ATTRIBUTE, MISC, SEQUENCER, GRAPHICS, CRTC, STATUS = 0, 2, 4, 14, 0x14, 0x1A


class Card:
    def __init__(self):
        self.clock = Clock(100000000)
        self.chip = Vga(self.clock)
        self.memory = Memory(1 << 20)
        screen.blank(self.memory)

    def put(self, block, index, value):
        self.chip.write(block, 1, index)
        self.chip.write(block + 1, 1, value)

    def get(self, block, index):
        self.chip.write(block, 1, index)
        return self.chip.read(block + 1, 1)

    def type(self, row, column, text):
        for i, character in enumerate(text.encode("cp437")):
            self.memory.write(0xB8000 + 160 * row + 2 * (column + i), bytes((character, 7)))

    def screen(self):
        return screen.Screen(self.memory, self.chip)


def test_indexed_registers_read_back():
    c = Card()
    for block, count in ((SEQUENCER, 5), (GRAPHICS, 9), (CRTC, 25)):
        c.put(CRTC, 0x11, 0)
        for n in range(count):
            c.put(block, n, 0x40 + n)
        assert [c.get(block, n) for n in range(count)] == [0x40 + n for n in range(count)]
        assert c.chip.read(block, 1) == count - 1
        c.put(block, 60, 0x55)
        assert c.get(block, 60) == 0


def test_the_first_registers_of_the_crt_controller_can_be_protected():
    c = Card()
    before = [c.get(CRTC, n) for n in range(8)]
    assert c.get(CRTC, 0x11) & 0x80
    for n in range(8):
        c.put(CRTC, n, before[n] ^ 0xFF)
    assert [c.get(CRTC, n) for n in range(7)] == before[:7]
    assert c.get(CRTC, 7) == before[7] ^ 0x10  # line compare, the one bit that stays open
    c.put(CRTC, 0x11, 0x0E)
    c.put(CRTC, 1, 39)
    assert c.get(CRTC, 1) == 39


def test_the_attribute_controller_takes_index_and_data_in_turn():
    c = Card()
    c.chip.read(STATUS, 1)
    c.chip.write(ATTRIBUTE, 1, 0x31)
    c.chip.write(ATTRIBUTE, 1, 0x2A)
    c.chip.write(ATTRIBUTE, 1, 0x32)
    c.chip.read(STATUS, 1)
    c.chip.write(ATTRIBUTE, 1, 0x31)
    assert c.chip.read(ATTRIBUTE, 1) == 0x31 and c.chip.read(ATTRIBUTE + 1, 1) == 0x2A


def test_the_palette():
    c = Card()
    c.chip.write(8, 1, 255)
    for value in (1, 2, 0xFF, 4):
        c.chip.write(9, 1, value)
    c.chip.write(7, 1, 255)
    assert [c.chip.read(9, 1) for _ in range(4)] == [1, 2, 0x3F, 4]
    assert c.chip.read(7, 1) == 3
    c.chip.write(6, 1, 0x0F)
    assert c.chip.read(6, 1) == 0x0F


def test_misc_output_and_reset():
    c = Card()
    assert c.chip.read(0x0C, 1) == 0x67
    c.chip.write(MISC, 1, 0xE3)
    assert c.chip.read(0x0C, 1) == 0xE3
    c.put(CRTC, 0x0E, 5)
    c.chip.reset()
    assert c.chip.read(0x0C, 1) == 0x67 and c.get(CRTC, 0x0E) == 0


def test_the_retrace_comes_70_times_a_second():
    c = Card()
    levels = []
    for _ in range(10000):
        levels.append(c.chip.read(STATUS, 1) >> 3 & 1)
        c.clock.advance(10000)
    assert sum(a < b for a, b in zip(levels, levels[1:], strict=False)) == 70
    assert 0.08 < sum(levels) / len(levels) < 0.14  # 49 of 449 lines


def test_text_and_cursor():
    c = Card()
    c.type(0, 0, "Hello")
    c.type(24, 78, "│é")
    c.put(CRTC, 0x0E, (24 * 80 + 3) >> 8)
    c.put(CRTC, 0x0F, (24 * 80 + 3) & 0xFF)
    shown = c.screen()
    assert shown.text == ["Hello"] + [""] * 23 + [" " * 78 + "│é"]
    assert (shown.rows, shown.columns, shown.cursor) == (25, 80, (24, 3))
    assert repr(shown).splitlines()[0] == "Hello"
    c.put(CRTC, 0x0A, 0x20)
    assert c.screen().cursor is None


def test_scrolling_by_the_start_address_wraps_in_the_page():
    c = Card()
    c.type(3, 0, "first")
    c.put(CRTC, 0x0C, 240 >> 8)
    c.put(CRTC, 0x0D, 240 & 0xFF)
    assert c.screen().text[0] == "first"
    start = 0x4000 - 40  # in characters; half of the first row is at the end of the 32 KiB
    c.memory.write(0xBFFFE, b"Z\x07")
    c.memory.write(0xB8000, b"Y\x07")
    c.put(CRTC, 0x0C, start >> 8)
    c.put(CRTC, 0x0D, start & 0xFF)
    assert c.screen().row(0)[39:41] == "ZY"


@given(st.binary(min_size=25, max_size=25), st.binary(max_size=64))
def test_any_registers_can_be_shown(registers, text):
    c = Card()
    c.put(CRTC, 0x11, 0)
    c.memory.write(0xB8000, text)
    for n, value in enumerate(registers):
        c.chip.set_crtc(n, value)
    shown = c.screen()
    assert 1 <= len(shown.text) <= 60 and max(map(len, shown.text)) <= 132


class Vm:
    def __init__(self, room):
        self.card = Card()
        self.clock = self.card.clock
        self.memory = self.card.memory
        self.console = self
        self.room = room
        self.out = bytearray()

    def tx(self, byte):
        if not self.room:
            return False
        self.room -= 1
        self.out.append(byte)
        return True


def test_the_mirror_sends_what_has_changed():
    vm = Vm(1 << 20)
    screen.Mirror(vm, vm.card.chip)
    vm.clock.advance(20000000)
    assert vm.out == b"\x1b[1;1H"
    vm.card.type(1, 2, "two")
    vm.card.type(2, 0, "é")
    vm.clock.advance(10000000)
    assert vm.out[6:].decode() == "\x1b[2;1H  two\x1b[K\x1b[3;1Hé\x1b[K\x1b[1;1H"
    del vm.out[:]
    vm.clock.advance(50000000)
    assert vm.out == b""


def test_the_mirror_goes_on_where_there_was_no_room():
    vm = Vm(10)
    screen.Mirror(vm, vm.card.chip)
    vm.card.type(0, 0, "0123456789")
    vm.card.type(24, 0, "end")
    for _ in range(20):
        vm.clock.advance(10000000)
        vm.room = 7
    assert vm.out.decode() == "\x1b[1;1H0123456789\x1b[K\x1b[25;1Hend\x1b[K\x1b[1;1H"
