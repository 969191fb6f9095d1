"""Where an image's parts may go: claims on the usable RAM of a guest's memory map.

Limits: a claim lies in one RAM range; the number of claims is small, so a list does.
"""

from micropython import const

from vmm.loaders.state import LoadError
from vmm.memory.e820 import RAM

_CHUNK = const(4096)
_ZEROS = bytes(_CHUNK)


class Space:
    """RAM of `e820`, with what has been claimed of it. `image` names errors' culprit."""

    def __init__(self, memory, e820, image):
        self._memory = memory
        self._ram = [(base, base + size) for base, size, kind in e820 if kind == RAM]
        self._claims = []
        self._image = image

    def error(self, text):
        return LoadError("%s: %s" % (self._image, text))

    def _inside(self, base, end):
        for start, stop in self._ram:
            if start <= base and end <= stop:
                return True
        return False

    def _overlap(self, base, end):
        for start, stop, what in self._claims:
            if base < stop and start < end:
                return start, stop, what
        return None

    def fits(self, base, size):
        """Whether [base, base + size) is unclaimed RAM."""
        return self._inside(base, base + size) and self._overlap(base, base + size) is None

    def claim(self, base, size, what):
        """Takes [base, base + size) for `what`; LoadError outside RAM or on overlap."""
        if not self._inside(base, base + size):
            raise self.error("%s at 0x%x, size 0x%x: outside guest RAM" % (what, base, size))
        other = self._overlap(base, base + size)
        if other:
            raise self.error("%s at 0x%x, size 0x%x: overlaps %s" % (what, base, size, other[2]))
        self._claims.append((base, base + size, what))
        return base

    def low(self, size, align, floor, what):
        """Claims the lowest free place at or above `floor`."""
        candidates = [floor] + [s for s, _ in self._ram] + [e for _, e, _ in self._claims]
        best = None
        for candidate in candidates:
            base = (max(candidate, floor) + align - 1) & ~(align - 1)
            if self.fits(base, size) and (best is None or base < best):
                best = base
        return self._taken(best, size, what)

    def high(self, size, align, limit, what):
        """Claims the highest free place that ends at or below `limit`."""
        candidates = [limit] + [e for _, e in self._ram] + [s for s, _, _ in self._claims]
        best = None
        for candidate in candidates:
            base = (min(candidate, limit) - size) & ~(align - 1)
            if base >= 0 and self.fits(base, size) and (best is None or base > best):
                best = base
        return self._taken(best, size, what)

    def _taken(self, base, size, what):
        if base is None:
            raise self.error("no guest RAM left for %s, size 0x%x" % (what, size))
        self._claims.append((base, base + size, what))
        return base

    def copy(self, base, data, size, what):
        """Claims `size` bytes at `base`: `data` first, zeros after it."""
        self.claim(base, size, what)
        self.fill(base, data, size)

    def fill(self, base, data, size):
        """Writes `data` and zeros up to `size` into a place claimed before."""
        if len(data):
            self._memory.write(base, data)
        base += len(data)
        left = size - len(data)
        zeros = memoryview(_ZEROS)
        while left > 0:
            step = min(left, _CHUNK)
            self._memory.write(base, zeros[:step])
            base += step
            left -= step
