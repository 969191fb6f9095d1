"""The parts of the port's `cpu` module that pure modules use."""

import ctypes
from random import getrandbits

tsc_hz = 1000


def rdtsc():
    """No time passes here."""
    return 0


def random():
    return getrandbits(32)


def look_at(_tsc):
    """Nobody looks here by himself."""


def hold(_more):
    """Nobody interrupts anybody here."""


def limited(function, argument, _account):
    """Without limits here."""
    return function(argument)


def copy(to, source, size):
    """Copy `size` bytes from one address to another."""
    ctypes.memmove(to, source, size)


def zero(hpa, size):
    """Clear `size` bytes at an address."""
    ctypes.memset(hpa, 0, size)


def line(_number, _kind):
    """No interrupt comes here."""


def add_up(hpa, size, total):
    """The sum of 16-bit words, the first byte the lower, and of `total`, folded to 16 bits."""
    data = ctypes.string_at(hpa, size) + bytes(size & 1)
    total += sum(memoryview(data).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def look():
    """Nobody is due here."""


def due():
    return False


def wrote(_hpa, _size):
    """No page is protected here."""
