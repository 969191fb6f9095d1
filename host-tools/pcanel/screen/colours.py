"""Colours of a guest's screen: the VGA's palette, and pixels of 15 and 16 bits."""

import numpy

# Bits of the palette's first 64 entries as a BIOS sets them: red, green, blue, each with a strong and a weak one.
_STRONG = (2, 1, 0)
_WEAK = (5, 4, 3)


def _of_bios() -> numpy.ndarray:
    """The palette of a guest that has set none, in 6 bits a colour."""
    table = numpy.zeros((256, 3), numpy.uint8)
    for n in range(64):
        for colour in range(3):
            table[n, colour] = 0x2A * (n >> _STRONG[colour] & 1) + 0x15 * (n >> _WEAK[colour] & 1)
    return table


def table(vga, wide: bool = False) -> numpy.ndarray:
    """256 x 3: the palette in 8 bits a colour. wide: it has as many; else 6."""
    if vga.palette is None:
        found = _of_bios()
    else:
        found = numpy.frombuffer(bytes(vga.palette), numpy.uint8).reshape(256, 3)
    return found if wide else found << 2 | found >> 4 & 3


def of_words(pixels: numpy.ndarray, bits: int) -> numpy.ndarray:
    """Pixels of 15 (5, 5, 5) or 16 bits (5, 6, 5) as red, green, blue."""
    green_bits = bits - 10
    red, green, blue = pixels >> 5 + green_bits & 31, pixels >> 5 & (1 << green_bits) - 1, pixels & 31
    green = green << 8 - green_bits | green >> 2 * green_bits - 8
    return numpy.stack((red << 3 | red >> 2, green, blue << 3 | blue >> 2), axis=2).astype(numpy.uint8)
