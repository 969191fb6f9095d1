"""Extended page tables: guest-physical to host-physical, with access rights.

Maps with the largest pages that the CPU supports and the alignment allows; splits a page when a part of it gets other
rights. A leaf stores the rights of its mapping in bits that the CPU ignores. A watcher narrows the effective rights
(vmm/memory/rights.py), which never exceed the mapping's. Source: SDM Vol. 3C, "The Extended Page Table Mechanism
(EPT)".
"""

import cpu
import micropython
from micropython import const

from vmm.memory.paging import ADDRESS
from vmm.vtx.x86 import PAGE

R = const(1)
W = const(2)
X = const(4)
RWX = const(7)

UC = const(0)
WB = const(6)
RAM = const(6 | 1 << 3)  # write-back, and "ignore PAT": the guest's page tables have no influence

LARGE = const(1 << 7)
_LEVELS = const(4)
_ENTRIES = const(512)  # of a table
_LOOK = const(128)  # of them that are written between two looks for guests above
_DEFERRED = const(1 << 52)  # software bit: the page is mapped at its first access
DEFERRED_HIGH = const(1 << 20)
_OWN = const(53)  # software bits 55:53: the rights of the mapping itself
OWN_HIGH = const(21)

SIZES = (PAGE, 0x200000, 0x40000000)  # of a leaf at level 0, 1, 2


def _shift(level):
    return 12 + 9 * level


class Ept:
    """One guest's tables.

    pages: the allocator of host pages. sizes: the leaf sizes that the CPU supports, of SIZES. invalidate(): called
    after a change that takes rights away or moves a page. made(gpa, size): called when leaves have been written with
    the full rights of their mapping.
    """

    def __init__(self, pages, sizes):
        self._pages = pages
        self._sizes = sizes
        self._tables = []
        self.root = self._table()
        self.eptp = self.root | (_LEVELS - 1) << 3 | WB
        self.invalidate = lambda: None
        self.made = lambda gpa, size: None

    def _table(self):
        hpa = self._pages.take(PAGE)
        self._tables.append(hpa)
        return hpa

    def release(self):
        """Free all tables. The guest must not run any more."""
        for hpa in self._tables:
            self._pages.give(hpa)
        self._tables = []
        self.root = self.eptp = 0

    def _descend(self, gpa, level):
        """Return (table, index) of the entry for gpa at `level`, splitting pages and creating tables."""
        table = self.root
        for at in range(_LEVELS - 1, level, -1):
            index = gpa >> _shift(at) & 0x1FF
            entry = _read(table, index)
            if entry & LARGE and at in (1, 2):
                entry = self._split(entry, at)
                _write(table, index, entry)
            elif not entry:
                entry = self._table() | RWX
                _write(table, index, entry)
            table = entry & ADDRESS
        return table, gpa >> _shift(level) & 0x1FF

    def _split(self, entry, level):
        """Return an entry for a new table of 512 leaves with the same mapping as `entry`."""
        table = self._table()
        step = SIZES[level - 1]
        large = LARGE if level - 1 else 0
        rest = entry & ~LARGE
        _fill(table, 0, _ENTRIES, rest | large, step)
        return table | RWX

    def map(self, gpa, hpa, size, rights=RWX, memory_type=RAM):
        """Map [gpa, gpa + size) to [hpa, hpa + size): all multiples of 4 KiB, else ValueError. rights: of the mapping.

        With memory_type RAM, a guest that maps its memory uncacheable does not slow the bus down for others, and stays
        coherent with the monitor's cached accesses.
        """
        if (gpa | hpa | size) & (PAGE - 1):
            raise ValueError("map %#x -> %#x, %#x bytes: not whole pages" % (gpa, hpa, size))
        start, end = gpa, gpa + size
        rest = rights << _OWN | rights | memory_type << 3
        while gpa < end:
            level = 0
            for at in (2, 1):
                step = SIZES[at]
                if step in self._sizes and not (gpa | hpa) & (step - 1) and end - gpa >= step:
                    level = at
                    break
            step = SIZES[level]
            table, index = self._descend(gpa, level)
            count = min(_ENTRIES - index, (end - gpa) // step)  # behind this table a larger page may fit
            _fill(table, index, index + count, hpa | rest | (LARGE if level else 0), step)
            gpa += count * step
            hpa += count * step
        self.made(start, size)

    def defer(self, gpa, hpa, size):
        """Map [gpa, gpa + size) to [hpa, hpa + size), each page at its first access (vmm/handlers/touch.py).

        The caller invalidates.
        """
        start, end = gpa, gpa + size
        while gpa < end:
            table, index = self._descend(gpa, 0)
            count = min(_ENTRIES - index, (end - gpa) // PAGE)
            _fill(table, index, index + count, hpa | RWX << _OWN | _DEFERRED | RAM << 3, PAGE)
            gpa += count * PAGE
            hpa += count * PAGE
        self.made(start, size)

    def touch(self, gpa):
        """Map the page at gpa if it was deferred; returns whether."""
        if not self.walk(gpa)[0] & _DEFERRED:
            return False
        self.narrow(gpa, RWX)
        return True

    def touched(self, gpa, size):
        """Return [(gpa, bytes), ...] of the mapped parts of [gpa, gpa + size)."""
        runs = []
        end = gpa + size
        while gpa < end:
            entry, page = self.walk(gpa)
            step = page or PAGE
            if entry and not entry & _DEFERRED:
                if runs and runs[-1][0] + runs[-1][1] == gpa:
                    runs[-1] = runs[-1][0], runs[-1][1] + step
                else:
                    runs.append((gpa, step))
            elif page == PAGE:
                table, index = self._descend(gpa, 0)
                step *= _waiting(table, index)
            gpa += step
        return runs

    def unmap(self, gpa, size):
        """Unmap [gpa, gpa + size), whole pages: accesses exit as EPT violations."""
        end = gpa + size
        while gpa < end:
            level = 0
            for at in (2, 1):
                if not gpa & (SIZES[at] - 1) and end - gpa >= SIZES[at]:
                    level = at
                    break
            table, index = self._descend(gpa, level)
            entry = _read(table, index)
            _write(table, index, 0)
            if level and entry and not entry & LARGE:
                self._drop(entry & ADDRESS, level - 1)
            gpa += SIZES[level]
        self.invalidate()

    def _drop(self, table, level):
        """Free a table that is not in use any more, and those below it. level: of its entries."""
        for index in range(_ENTRIES if level else 0):
            entry = _read(table, index)
            if entry and not entry & LARGE:
                self._drop(entry & ADDRESS, level - 1)
        self._tables.remove(table)
        self._pages.give(table)

    def own(self, gpa):
        """The rights of the mapping at gpa (R, W, X or-ed); 0 if no page is mapped."""
        return self.walk(gpa)[0] >> _OWN & RWX

    def narrow(self, gpa, rights, hpa=None):
        """Give the page at gpa its mapping's rights and-ed with `rights`; no effect if no page is mapped.

        hpa: the page to which it is mapped from now on. The caller invalidates.
        """
        if self.walk(gpa)[1]:
            table, index = self._descend(gpa, 0)
            entry = _read(table, index)
            if hpa is not None:
                entry = entry & ~ADDRESS | hpa
            _write(table, index, entry & ~(RWX | _DEFERRED) | entry >> _OWN & rights & RWX)

    def place(self, gpa):
        """The hpa of the entry of the page at gpa. It stays the same as long as a watcher narrows the page's rights."""
        table, index = self._descend(gpa, 0)
        return table + 8 * index

    def join(self, gpa):
        """Replace the small pages around gpa by one large page with the same mapping, if there is one.

        The caller invalidates.
        """
        for level in (1, 2):
            if SIZES[level] not in self._sizes:
                return
            parent, at = self._descend(gpa, level)
            table = _read(parent, at) & ADDRESS
            first = _read(table, 0)
            large = LARGE if level > 1 else 0
            if not first & RWX or first & large != large or first & ADDRESS & (SIZES[level] - 1):
                return
            step = SIZES[level - 1]
            if not _continues(table, first, step):
                return
            _write(parent, at, first | LARGE)
            self._tables.remove(table)
            self._pages.give(table)

    def lay(self, gpa, hpa, rights):
        """Map the page at gpa to a page of the monitor for a while. Returns the argument of lift().

        lift() frees the tables that this adds. The caller invalidates if a page was mapped there.
        """
        table = self.root
        for at in range(_LEVELS - 1, 0, -1):
            index = gpa >> _shift(at) & 0x1FF
            entry = _read(table, index)
            if entry & LARGE and at in (1, 2):
                entry = self._split(entry, at)
                _write(table, index, entry)
            elif not entry:
                made = len(self._tables)
                below, leaf = self._descend(gpa, 0)
                _write(below, leaf, rights << _OWN | hpa | rights | WB << 3)
                return table, index, 0, self._tables[made:]
            table = entry & ADDRESS
        index = gpa >> 12 & 0x1FF
        entry = _read(table, index)
        _write(table, index, rights << _OWN | hpa | rights | WB << 3)
        return table, index, entry, []

    def lift(self, laid):
        """Undo lay(); several calls in reverse order. The caller invalidates."""
        table, index, entry, made = laid
        _write(table, index, entry)
        for hpa in made:
            self._tables.remove(hpa)
            self._pages.give(hpa)

    def walk(self, gpa):
        """Return (entry, page size) of the leaf for gpa, or (0, 0) if there is none."""
        table = self.root
        for at in range(_LEVELS - 1, -1, -1):
            entry = _read(table, gpa >> _shift(at) & 0x1FF)
            if not entry:
                return 0, 0
            if at == 0 or (entry & LARGE and at < 3):
                return entry, SIZES[at]
            table = entry & ADDRESS
        return 0, 0

    def translate(self, gpa):
        """Return the hpa of gpa, or None if it is not mapped."""
        entry, size = self.walk(gpa)
        if not size or not entry & RWX:
            return None
        return entry & ADDRESS & ~(size - 1) | gpa & (size - 1)


# Entries are below 2**62: small ints.
@micropython.viper
def _read(table: int, index: int) -> int:
    t = ptr32(table)
    return int(t[2 * index]) | int(t[2 * index + 1]) << 32


@micropython.viper
def _write(table: int, index: int, entry: int):
    t = ptr32(table)
    t[2 * index] = entry
    t[2 * index + 1] = entry >> 32


@micropython.viper
def _fill(table: int, index: int, end: int, entry: int, step: int):
    """Write entries index to end - 1 of a table, each mapping `step` bytes after the one before."""
    t = ptr32(table)
    look = cpu.look
    while index < end:
        if index & (_LOOK - 1) == 0:
            look()
        t[2 * index] = entry
        t[2 * index + 1] = entry >> 32
        entry += step
        index += 1


@micropython.viper
def _continues(table: int, entry: int, step: int) -> int:
    """Whether all entries of a table are those that _fill() would write from `entry` on."""
    t = ptr32(table)
    index = 0
    look = cpu.look
    while index < _ENTRIES:
        if index & (_LOOK - 1) == 0:
            look()
        if int(t[2 * index]) | int(t[2 * index + 1]) << 32 != entry:
            return 0
        entry += step
        index += 1
    return 1


@micropython.viper
def _waiting(table: int, index: int) -> int:
    """The number of consecutive deferred entries of a table from `index` on."""
    t = ptr32(table)
    first = index
    while index < _ENTRIES:
        if int(t[2 * index + 1]) & DEFERRED_HIGH == 0:
            break
        index += 1
    return index - first
