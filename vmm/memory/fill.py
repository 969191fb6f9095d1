"""Host memory filled with ones: the initial state of a VMCS's bitmaps."""

import micropython


@micropython.viper
def ones(hpa: int, size: int):
    """Set `size` bytes at hpa, a multiple of 4."""
    words = ptr32(hpa)
    i = 0
    while i < size >> 2:
        words[i] = 0xFFFFFFFF
        i += 1
