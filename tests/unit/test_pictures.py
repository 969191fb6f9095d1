"""The host's picture of a screen, from registers and memory; a viewer's keys and pointer."""

import struct

import numpy
import pytest
from clock import Clock
from pcanel.errors import EngineError
from pcanel.guest.file import DISPLAY_BIOS
from pcanel.screen import colours
from pcanel.screen.source import Facts, Source
from pcanel.vnc.hand import Hand

from vmm.devices import bochs_vbe as vbe
from vmm.devices.vga import Vga
from vmm.keyboard import SHIFT, scan

RAM, VGA, PALETTE, VBE, VIDEO = 0x1000000, 0x2000000, 0x2001000, 0x2002000, 0x3000000
VIDEO_SIZE = 1 << 20


class Machine:
    """read(hpa, size) of a guest with a VGA and its framebuffer."""

    def __init__(self):
        self.chip = Vga(Clock(100000000))
        self.chip.vbe = self.vbe = vbe.BochsVbe(VIDEO_SIZE, lambda size: None, lambda: None)
        self.ram, self.video = bytearray(1 << 20), bytearray(VIDEO_SIZE)
        self.ram[0xB8000:0xB8FA0] = b" \x07" * 2000

    def read(self, hpa, size):
        palette = bytes(self.chip.palette or b"")
        parts = ((RAM, self.ram), (VGA, self.chip.state), (PALETTE, palette), (VBE, bytes(self.vbe.state)))
        for base, data in (*parts, (VIDEO, self.video)):
            if base <= hpa and hpa + size <= base + len(data):
                return bytes(data[hpa - base : hpa - base + size])
        raise AssertionError((hex(hpa), size))

    def mode(self, width, height, bits):
        for n, value in ((vbe.XRES, width), (vbe.YRES, height), (vbe.BPP, bits), (vbe.ENABLE, vbe.ENABLED)):
            self.vbe.set(n, value)

    def set(self, block, index, value):
        self.chip.write(block, 1, index)
        self.chip.write(block + 1, 1, value)

    def picture(self):
        facts = Facts("g", 1, 1 << 20, RAM, VGA, PALETTE if self.chip.palette else 0, VBE, VIDEO, VIDEO_SIZE)
        return Source(self, facts).picture()


@pytest.fixture
def machine():
    return Machine()


def cell(picture, row, column, width=9):
    return picture[16 * row : 16 * row + 16, width * column : width * column + width]


def test_text_in_the_guests_own_font(machine):
    machine.ram[0xA0000 + 32 * ord("X") : 0xA0000 + 32 * ord("X") + 3] = b"\x81\xff\x18"
    machine.ram[0xB8000:0xB8002] = b"X\x1e"  # yellow on blue
    machine.set(0x14, 0x0A, 0x20)  # no cursor
    shown = cell(machine.picture(), 0, 0)
    yellow, blue = (0xFF, 0xFF, 0x55), (0, 0, 0xAA)
    assert [tuple(dot) for dot in shown[0]] == [yellow, *[blue] * 6, yellow, blue]
    assert [tuple(dot) for dot in shown[1]] == [yellow] * 8 + [blue]
    assert (shown[3:] == blue).all()
    machine.set(4, 1, 1)  # 8 dots
    assert machine.picture().shape == (400, 640, 3)


def test_line_graphics_fill_the_ninth_dot(machine):
    machine.ram[0xA0000 + 32 * 0xC4 + 7] = 0xFF
    machine.ram[0xB8000:0xB8002] = b"\xc4\x07"
    assert (cell(machine.picture(), 0, 0)[7] == 0xAA).all()


def test_text_without_a_font_has_that_of_a_bios(machine):
    with open(DISPLAY_BIOS, "rb") as file:
        bios = file.read()
    machine.ram[0xB8002:0xB8004] = b"A\x07"
    shown = cell(machine.picture(), 0, 1)[:, :8, 0] != 0
    assert numpy.packbits(shown, axis=1).tobytes() in bios and shown.any()


def test_the_cursor(machine):
    machine.set(0x14, 0x0E, 0)
    machine.set(0x14, 0x0F, 81)
    shown = cell(machine.picture(), 1, 1)
    assert (shown[13:15] == 0xAA).all() and not shown[:13].any() and not shown[15:].any()


def test_a_palette_of_the_guests(machine):
    machine.chip.write(8, 1, 0)
    for value in (1, 2, 63):
        machine.chip.write(9, 1, value)
    assert tuple(machine.picture()[0, 0]) == (4, 8, 255)  # colour 0, the background


@pytest.mark.parametrize(
    ("bits", "pixel", "seen"),
    [(32, b"\x10\x20\x30\xff", (0x30, 0x20, 0x10)), (24, b"\x10\x20\x30", (0x30, 0x20, 0x10)),
     (16, struct.pack("<H", 31 << 11 | 32 << 5 | 1), (255, 130, 8)),
     (15, struct.pack("<H", 16 << 10 | 31), (132, 0, 255)), (8, b"\x04", (0xAA, 0, 0))],
)  # fmt: skip
def test_pixels(machine, bits, pixel, seen):
    machine.mode(100, 50, bits)
    machine.vbe.set(vbe.VIRT_WIDTH, 128)
    machine.vbe.set(vbe.X_OFFSET, 3)
    machine.vbe.set(vbe.Y_OFFSET, 2)
    at = (7 + 2) * 128 + 5 + 3
    machine.video[at * len(pixel) : (at + 1) * len(pixel)] = pixel
    shown = machine.picture()
    assert shown.shape == (50, 100, 3)
    assert tuple(shown[7, 5]) == seen and not shown[7, 6:].any() and not shown[:7].any()


def test_mode_13h_and_planes(machine):
    machine.set(0x0E, 6, 5)
    machine.set(4, 4, 0x0E)
    machine.ram[0xA0000 + 320 * 9 + 8] = 2
    shown = machine.picture()
    assert shown.shape == (200, 320, 3) and tuple(shown[9, 8]) == (0, 0xAA, 0)
    machine.set(4, 4, 6)
    with pytest.raises(EngineError, match=r"guest g: 640 x 400 in planes"):
        machine.picture()


def test_a_bios_palette_is_ega():
    table = colours.table(Vga(Clock(1)))
    assert [tuple(table[n]) for n in (1, 7, 0x14, 0x3F)] == [(0, 0, 0xAA), (0xAA,) * 3, (0xAA, 0x55, 0), (0xFF,) * 3]


def test_a_viewers_keys():
    hand = Hand()

    def typed(*events):
        for down, keysym in events:
            hand.key(down, keysym)
        return hand.take()[0]

    assert typed((1, ord("a")), (0, ord("a"))) == [0x1E, 0x9E]
    assert typed((1, ord("A")), (0, ord("A"))) == [SHIFT, 0x1E, 0x9E, SHIFT | 0x80]  # without shift held
    assert typed((1, 0xFFE1), (1, ord("A")), (0, ord("A")), (0, 0xFFE1)) == [SHIFT, 0x1E, 0x9E, SHIFT | 0x80]
    assert typed((1, 0xFFE3), (1, 0xFFFF), (0, 0xFFFF), (0, 0xFFE3)) == [0x1D, 0xE0, 0x53, 0xE0, 0xD3, 0x9D]
    assert typed((1, 0xFFBE + 11), (1, 0xFFBE + 11)) == 2 * scan(0x58, False)  # it repeats
    assert typed((1, 0xFFB7), (1, 0x20AC), (0, 0x20AC)) == [0x08]


def test_a_viewers_pointer():
    hand = Hand()
    for event in ((0, 10, 10), (0, 13, 9), (1, 13, 9), (1, 20, 9), (0, 20, 9), (16, 20, 9), (2, 20, 9)):
        hand.pointer(*event)
    assert hand.take()[1] == [[3, -1, 0, 0], [7, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 4]]
    assert hand.take() == ([], [])
