"""vmm/loaders/bios.py and INT 10h to 1Ah: routines in memory, and answers by the technical reference."""

import struct

import pytest
from clock import Clock
from support import Memory

from vmm import bda, screen
from vmm.devices.vga import Vga
from vmm.handlers.bios_video import Video
from vmm.loaders import bios


class Call:
    """A call as Video sees it."""

    def __init__(self, vcpu, ax):
        self.vcpu = vcpu
        self.eax = ax

    ah = property(lambda self: self.eax >> 8 & 0xFF)
    al = property(lambda self: self.eax & 0xFF, lambda self, value: setattr(self, "eax", self.eax & 0xFF00 | value))
    ax = property(lambda self: self.eax, lambda self, value: setattr(self, "eax", value))

    def put(self, **registers):
        for name, value in registers.items():
            setattr(self.vcpu, "r" + name, value)


class Machine:
    def __init__(self):
        self.memory = Memory(1 << 20)
        bda.install(self.memory, [0x3F8])
        screen.blank(self.memory)
        self.vga = Vga(Clock())
        self.video = Video(self.memory, self.vga)
        self.rbx = self.rcx = self.rdx = self.rbp = 0

    def int10(self, ax, bx=0, cx=0, dx=0, bp=0):
        """What is in AX afterwards; None for a function that is not there."""
        self.rbx, self.rcx, self.rdx, self.rbp = bx, cx, dx, bp
        call = Call(self, ax)
        return call.ax if self.video.call(call) else None

    def segment(self, _):
        return 0x9000, 0x90000, 0xFFFF, 0x93

    def peek(self, gva, size):
        return self.memory.read(gva, size)

    def text(self):
        return screen.Screen(self.memory, self.vga).text

    def say(self, text):
        for character in text:
            self.int10(0x0E00 | ord(character))


def test_vectors_lead_to_routines():
    memory = Memory(1 << 20)
    bios.install(memory)
    for vector in range(256):
        offset, segment = struct.unpack("<HH", memory.read(4 * vector, 4))
        if vector in (0x1D, 0x1F, 0x41, 0x43, 0x46):
            assert (offset, segment) == (0, 0)
        elif vector == 0x1E:
            assert memory.read((segment << 4) + offset, 4) == b"\xdf\x02\x25\x02"
        else:
            assert segment == 0xF000
            code = memory.read((segment << 4) + offset, 32)
            assert code.startswith(bios.routine(vector) or b"\xcf")
            assert len(bios.routine(vector)) <= 32
    assert memory.read_u8(0xFFFFE) == 0xFC


@pytest.mark.parametrize("vector", [0x10, 0x16, 0x08])
def test_routines_by_a_disassembler(vector):
    capstone = pytest.importorskip("capstone")
    code = bios.routine(vector)
    lines = [f"{i.mnemonic} {i.op_str}".strip() for i in capstone.Cs(capstone.CS_ARCH_X86, 0x2).disasm(code, 0)]
    ask = ["push eax", f"mov eax, {0x200 + vector:#x}", "clc", "vmcall"]
    rest = {
        0x10: ["add sp, 4", "iret"],
        0x16: ["jae 0x12", "sti", "hlt", "jmp 2", "add sp, 4", "iret"],
        0x08: ["add sp, 4", "int 0x1c", "push ax", "mov al, 0x20", "out 0x20, al", "pop ax", "iret"],
    }
    assert lines == ask + rest[vector]


def test_a_teletype_moves_wraps_and_scrolls():
    m = Machine()
    m.say("one\r\ntwo\b\bX\7")
    assert m.text()[:3] == ["one", "tXo", ""]
    assert screen.Screen(m.memory, m.vga).cursor == (1, 2)
    m.int10(0x0200, dx=24 << 8 | 78)
    m.say("abc")
    assert m.text()[0] == "tXo" and m.text()[23] == " " * 78 + "ab" and m.text()[24] == "c"
    assert m.int10(0x0300) is not None and m.rdx == 24 << 8 | 1


def test_windows_scroll_up_down_and_clear():
    m = Machine()
    for row in range(5):
        m.int10(0x0200, dx=row << 8)
        m.say("abcdefgh"[row] * 4)
    m.int10(0x0601, bx=0x1700, cx=1 << 8 | 1, dx=3 << 8 | 2)
    assert m.text()[:5] == ["aaaa", "bccb", "cddc", "d  d", "eeee"]
    assert m.memory.read_u8(0xB8000 + 160 * 3 + 3) == 0x17
    m.int10(0x0702, bx=0x0700, cx=1 << 8 | 1, dx=3 << 8 | 2)
    assert m.text()[:5] == ["aaaa", "b  b", "c  c", "dccd", "eeee"]
    m.int10(0x0600, bx=0x0700, dx=24 << 8 | 79)
    assert m.text() == [""] * 25


def test_characters_with_attributes():
    m = Machine()
    m.int10(0x0200, dx=2 << 8 | 3)
    m.int10(0x0900 | ord("#"), bx=0x4E, cx=3)
    assert m.text()[2] == "   ###"
    assert m.int10(0x0800) == 0x4E00 | ord("#")
    m.int10(0x0900 | ord("!"), bx=7, cx=0xFFFF)  # to the end of the page, not beyond
    assert m.memory.read_u16(0xB8000 + 4000) == 0 and m.text()[24] == "!" * 80
    m.memory.write(0x90010, b"A\x1fB\x2f")
    m.int10(0x1303, cx=2, dx=5 << 8, bp=0x10)
    assert m.memory.read(0xB8000 + 160 * 5, 4) == b"A\x1fB\x2f"


def test_what_the_display_is():
    m = Machine()
    assert m.int10(0x0F00) == 80 << 8 | 3
    assert m.int10(0x1A00) & 0xFF == 0x1A and m.rbx == 8
    assert m.int10(0x1200, bx=0x10) is not None and m.rbx == 3
    assert m.int10(0x4F00) is None
    assert m.memory.read_u16(bda.EQUIPMENT) & 0x30 == 0x20 and m.memory.read_u16(bda.COLUMNS) == 80
