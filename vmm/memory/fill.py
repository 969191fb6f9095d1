"""Host memory filled with ones: the initial state of a VMCS's bitmaps."""

import micropython
from micropython import const

_PIECE = const(1024)  # bytes between two preemption points


def ones(hpa, size):
    """Set `size` bytes at hpa, a multiple of 4."""
    for at in range(hpa, hpa + size, _PIECE):
        _fill(at, min(_PIECE, hpa + size - at))


@micropython.viper
def _fill(hpa: int, size: int):
    words = ptr32(hpa)
    i = 0
    while i < size >> 2:
        words[i] = 0xFFFFFFFF
        i += 1
