"""The allocator of host-physical memory, in pages of 4 KiB.

One allocator owns all memory that is neither image, heap nor boot module. Addresses are
host-physical (and host-virtual: the monitor's mapping is the identity). Memory is zeroed
when it is given back, so that no data of one guest reaches the next, and when it is taken.
"""

from micropython import const

from vmm.vtx.x86 import PAGE

_LOWEST = const(0x100000)  # below: BIOS, real-mode areas


class OutOfMemory(MemoryError):
    """No free run of host memory of that size and alignment."""


def _nothing(_):
    """hold() of an allocator without guests."""


def _round_up(value, align):
    return (value + align - 1) & ~(align - 1)


class Pages:
    """Allocator over [start, end) ranges.

    free: [[start, end], ...] sorted, in bytes, page aligned, never adjacent.
    """

    def __init__(self, ranges, zero, hold=_nothing):
        """ranges: [(start, size)] of free memory. zero(hpa, size) clears memory. hold(1), hold(-1): disable preemption
        by guests in between."""
        self._hold = hold
        self._zero = zero
        self.free = []
        self._used = {}
        for start, size in ranges:
            end = (start + size) & ~(PAGE - 1)
            start = _round_up(max(start, _LOWEST), PAGE)
            if start < end:
                self._insert(start, end)
        self.total = self.available

    @property
    def available(self):
        """Free bytes."""
        return sum(end - start for start, end in self.free)

    @property
    def largest(self):
        """Bytes of the largest free run."""
        return max([end - start for start, end in self.free] or [0])

    def reserve(self, start, size):
        """Remove the free parts of [start, start + size) from the free ranges."""
        end = _round_up(start + size, PAGE)
        start &= ~(PAGE - 1)
        kept = []
        for a, b in self.free:
            if b <= start or end <= a:
                kept.append([a, b])
                continue
            if a < start:
                kept.append([a, start])
            if end < b:
                kept.append([end, b])
        self.free = kept
        self.total = self.available

    def take(self, size, align=PAGE):
        """Return the hpa of `size` zeroed bytes, rounded up to pages. OutOfMemory; ValueError for a size below 1."""
        if size <= 0:
            raise ValueError("%d bytes of host memory cannot be taken" % size)
        size = _round_up(size, PAGE)
        self._hold(1)
        try:
            hpa = self._find(size, align)
        finally:
            self._hold(-1)
        self._zero(hpa, size)
        return hpa

    def _find(self, size, align):
        for i in range(len(self.free) - 1, -1, -1):
            start, end = self.free[i]
            hpa = (end - size) & ~(align - 1)
            if hpa < start or end - start < size:
                continue
            rest = [[start, hpa], [hpa + size, end]]
            self.free[i : i + 1] = [r for r in rest if r[0] < r[1]]
            self._used[hpa] = size
            return hpa
        raise OutOfMemory(
            "%d KiB of host memory wanted, %d KiB free, largest run %d KiB"
            % (size >> 10, self.available >> 10, self.largest >> 10)
        )

    def give(self, hpa):
        """Zero and free memory of take(). ValueError if it was not taken."""
        if hpa not in self._used:
            raise ValueError("%#x was not taken" % hpa)
        size = self._used.pop(hpa)
        self._zero(hpa, size)
        self._hold(1)
        try:
            self._insert(hpa, hpa + size)
        finally:
            self._hold(-1)

    def _insert(self, start, end):
        i = 0
        while i < len(self.free) and self.free[i][0] < start:
            i += 1
        before = self.free[i - 1] if i else None
        after = self.free[i] if i < len(self.free) else None
        if (before and before[1] > start) or (after and end > after[0]):
            raise ValueError("[%#x, %#x) is free already" % (start, end))
        if before and before[1] == start:
            before[1] = end
            if after and after[0] == end:
                before[1] = after[1]
                del self.free[i]
        elif after and after[0] == end:
            after[0] = start
        else:
            self.free.insert(i, [start, end])
