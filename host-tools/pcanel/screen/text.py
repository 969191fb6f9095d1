"""A text screen as a picture, with the font that the guest has loaded (IBM PS/2 Hardware Interface Technical Reference,
"Video Subsystem", alphanumeric modes)."""

from functools import cache
from pathlib import Path

import numpy

from pcanel.errors import EngineError
from pcanel.guest.file import DISPLAY_BIOS
from pcanel.screen import colours

_FONTS = 0xA0000  # plane 2, which is RAM
_GLYPH = 32  # bytes
_FONT = 256 * _GLYPH
_BIOS_GLYPH = 16
_FIRST_GLYPHS = bytes(16) + bytes.fromhex("00007e81a58181bd9981817e00000000")  # a blank and a face

# Indexed registers
_CLOCKING, _CHARACTER_MAP = 1, 3  # of the sequencer
_MODE, _COLOUR_SELECT = 16, 20  # of the attribute controller
_8_DOTS = 0x01
_LINE_GRAPHICS, _BLINK, _PALETTE_54 = 0x04, 0x08, 0x80


@cache
def _bios_font() -> bytes:
    """The font of SeaBIOS's VGA BIOS, of 16 lines, for a guest that no BIOS has started."""
    path = Path(DISPLAY_BIOS)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EngineError(f"the guest has loaded no font, and {path}: {error.strerror}") from error
    at = data.find(_FIRST_GLYPHS)
    if at < 0:
        raise EngineError(f"the guest has loaded no font, and {path} has none that is known")
    glyphs = [data[at + n : at + n + _BIOS_GLYPH] for n in range(0, 256 * _BIOS_GLYPH, _BIOS_GLYPH)]
    return b"".join([glyph + bytes(_GLYPH - _BIOS_GLYPH) for glyph in glyphs])


def _font(ram, number: int) -> numpy.ndarray:
    """256 x 32 lines of 8 dots, from one of eight places."""
    data = ram.read(_FONTS + ((number & 3) << 14 | (number & 4) << 11), _FONT)
    if not any(data):
        data = _bios_font()
    return numpy.unpackbits(numpy.frombuffer(data, numpy.uint8).reshape(256, _GLYPH, 1), axis=2)


def _attribute_colours(vga) -> numpy.ndarray:
    """16 x 3: through the attribute controller's palette to the DAC's."""
    mode, select = vga.attribute(_MODE), vga.attribute(_COLOUR_SELECT)
    indices = []
    for n in range(16):
        index = vga.attribute(n) & 0x3F | (select & 0x0C) << 4
        if mode & _PALETTE_54:
            index = index & 0xCF | (select & 3) << 4
        indices.append(index)
    return colours.table(vga)[indices]


def picture(screen, vga, ram) -> numpy.ndarray:
    """vmm.screen.Screen as height x width x 3."""
    rows, columns = screen.rows, screen.columns
    height = (vga.crtc(9) & 31) + 1
    cells = numpy.frombuffer(b"".join([screen.cells(n) for n in range(rows)]), numpy.uint8).reshape(rows, columns, 2)
    characters, attributes = cells[:, :, 0], cells[:, :, 1]
    maps = vga.sequencer(_CHARACTER_MAP)
    plain, other = maps & 3 | maps >> 2 & 4, maps >> 2 & 3 | maps >> 3 & 4
    dots = _font(ram, plain)[characters, :height]
    if other != plain:
        dots = numpy.where((attributes & 8 != 0)[:, :, None, None], _font(ram, other)[characters, :height], dots)
    mode = vga.attribute(_MODE)
    if not vga.sequencer(_CLOCKING) & _8_DOTS:
        joined = (characters >= 0xC0) & (characters < 0xE0) if mode & _LINE_GRAPHICS else numpy.zeros_like(characters)
        ninth = dots[:, :, :, 7:] * joined.astype(numpy.uint8)[:, :, None, None]
        dots = numpy.concatenate((dots, ninth), axis=3)
    if screen.cursor:
        _show_cursor(dots, screen.cursor, vga, height)
    table = _attribute_colours(vga)
    front = table[attributes & 15]
    back = table[attributes >> 4 & (7 if mode & _BLINK else 15)]
    found = numpy.where(dots[..., None] != 0, front[:, :, None, None], back[:, :, None, None])
    return found.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * dots.shape[3], 3)


def _show_cursor(dots: numpy.ndarray, place: tuple[int, int], vga, height: int) -> None:
    first, last = vga.crtc(0x0A) & 31, vga.crtc(0x0B) & 31
    dots[place][first : min(last, height - 1) + 1] = 1
