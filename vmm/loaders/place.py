"""Where an image's parts may go: claims on the usable RAM of a guest's memory map.

Limits: a claim lies in one RAM range; claims are few, so a list is searched.
"""

from micropython import const

from vmm.loaders.state import LoadError
from vmm.memory.e820 import BIOS, EBDA, ONE_MIB, OPTION_ROMS, RAM, TABLES_END

LOW_FLOOR = const(0x1000)  # lowest gpa of what a boot protocol does not place: above null pointers and BIOS data
_CHUNK = const(4096)
_ZEROS = bytes(_CHUNK)

# Below 1 MiB, what a segment may cover: (from, to, whether it is loaded there).
_LOW = (
    (0, EBDA, True),
    (EBDA, OPTION_ROMS, False),  # the EBDA, VGA memory
    (OPTION_ROMS, BIOS, True),
    (BIOS, TABLES_END, False),  # ACPI's and the MP tables
    (TABLES_END, ONE_MIB, True),
)


class Space:
    """RAM of `e820`, with what has been claimed of it. `image`: the name for error messages."""

    def __init__(self, memory, e820, image):
        self._memory = memory
        self._ram = [(base, base + size) for base, size, kind in e820 if kind == RAM]
        self._claims = []
        self._image = image
        self._top = max([base + size for base, size, _ in e820])

    def error(self, text):
        """A LoadError that names the image."""
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

    def put(self, base, data, size, what):
        """As copy, for a segment that may reach into the firmware's area below 1 MiB.

        A segment that begins with its own ELF header often does. Its parts over the EBDA, VGA memory and the
        ACPI and MP tables are not loaded. The rest of that area is, although the map does not list it as RAM.
        """
        end = base + size
        if end <= EBDA or base >= ONE_MIB:
            self.copy(base, data, size, what)
            return
        if end > self._top:
            raise self.error("%s at 0x%x, size 0x%x: outside guest RAM" % (what, base, size))
        for start, stop, loads in _LOW + ((ONE_MIB, max(end, ONE_MIB), True),):
            start, stop = max(start, base), min(stop, end)
            if start >= stop or not loads:
                continue
            other = self._overlap(start, stop)
            if other:
                raise self.error("%s at 0x%x, size 0x%x: overlaps %s" % (what, base, size, other[2]))
            if start >= ONE_MIB:
                self.claim(start, stop - start, what)
            else:
                self._claims.append((start, stop, what))
            self.fill(start, data[start - base : stop - base], stop - start)

    def loaded(self, gpa):
        """Whether gpa has been claimed."""
        return self._overlap(gpa, gpa + 1) is not None

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
