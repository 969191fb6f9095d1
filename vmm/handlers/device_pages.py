"""The functions that read and write each page of device memory, of RAM, and of unclaimed memory.

vmm/emulation/sites.py executes the instruction and calls read(offset, size) or write(offset, size, value) of the page.
A page may belong to one device, be part of a longer device, or be shared by several. An access through the bus, in
bytecode, takes 14,000 ticks more than through any of the functions here.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.vtx.x86 import MASK32, PAGE

_MOST = const(16)  # pages of the largest device that has an entry for each page


class Ways:
    """The access functions of one guest's pages.

    below, beyond: {page number: (read, write)} of pages below the end of RAM, and of the others; two dictionaries,
    since a failing look-up takes longer in a larger one. others: (read, write) of RAM, and of pages in neither. size:
    bytes of the RAM at gpa 0.
    """

    def __init__(self, bus, sites, size):
        self._bus = bus
        self._sites = sites
        self._end = size // PAGE
        self.below = {}
        self.beyond = {}
        self.others = [(sites.peek, sites.poke), None]
        self._told = None  # {page number: (read, write)} of pages of RAM under tell()
        self._tables = None  # arrays whose addresses the functions below hold: the reference keeps them allocated

    def set(self):
        """Rebuild all entries from the bus's regions."""
        self.beyond.clear()
        self.below.clear()
        for page in self._told or ():
            self._enter(page, self._told[page])
        self._tables = None
        wide, parts, whole = [], {}, True
        for base, end, device in self._bus.regions:
            if end - base <= _MOST * PAGE:
                self._place(base, end, device, parts)
            elif (base | end) & PAGE - 1:
                whole = False
            else:
                wide.append((base >> 12, end - base >> 12, device))
        absent = self._sites.unclaimed(self._bus.miss)
        for page in parts:
            self._enter(page, self._shared(parts[page], absent))
        self.others[1] = absent
        if not whole:
            self.others[1] = self._bus_read, self._bus_write
        elif wide:
            at, table = self._sites.page_at, self._table(wide)
            self.others[1] = (
                bind(_wide_read, at, table, [device.read for _, _, device in wide], absent[0]),
                bind(_wide_write, at, table, [device.write for _, _, device in wide], absent[1]),
            )

    def _place(self, base, end, device, parts):
        """Enter a device's pages. Those that it fills in part go to parts: {page number: [(first offset, end, addend
        for an offset, device)]}."""
        for page in range(base >> 12, (end - 1 >> 12) + 1):
            at = page << 12
            if base <= at and end >= at + PAGE:
                self._enter(page, _moved(device, at - base))
            else:
                part = max(base, at) - at, min(end, at + PAGE) - at, at - base, device
                parts.setdefault(page, []).append(part)

    def _enter(self, page, way):
        (self.below if page < self._end else self.beyond)[page] = way

    def _shared(self, parts, absent):
        """Return (read, write) of a page with several devices, or with one that does not fill it."""
        if len(parts) == 1:
            first, end, more, device = parts[0]
            return (
                bind(_one_read, first, end, more, device.read, absent[0]),
                bind(_one_write, first, end, more, device.write, absent[1]),
            )
        at = self._table(parts)
        return (
            bind(_part_read, at, [device.read for _, _, _, device in parts], absent[0]),
            bind(_part_write, at, [device.write for _, _, _, device in parts], absent[1]),
        )

    def _table(self, rows):
        """Return the address of an array: the number of rows, then their numbers. rows: [(number, ..., device)]."""
        table = array("I", [len(rows)])
        for row in rows:
            table.extend(array("I", [number & MASK32 for number in row[:-1]]))
        self._tables = (self._tables or []) + [table]
        return uctypes.addressof(table)

    def tell(self, page, make):
        """Replace the write function of a page of RAM: a write that exits calls make(poke)(offset, size, value).

        page: page number. make: wraps poke(offset, size, value), which writes to RAM; None: restore poke.
        """
        peek, poke = self.others[0]
        told = dict(self._told or {})
        if make is None:
            told.pop(page, None)
        else:
            told[page] = peek, make(poke)
        self._told = told or None
        self.set()

    def _bus_read(self, offset, size):
        return self._bus.read(self._sites.page << 12 | offset, size)

    def _bus_write(self, offset, size, value):
        self._bus.write(self._sites.page << 12 | offset, size, value)


def _moved(device, more):
    """Return (read, write) of a page in the middle of a device. more: addend for an offset."""
    if more == 0:
        return device.read, device.write
    return bind(_moved_read, more, device.read), bind(_moved_write, more, device.write)


@micropython.viper
def _moved_read(more: int, read, offset: int, size: int) -> int:
    return int(read(offset + more, size))


@micropython.viper
def _moved_write(more: int, write, offset: int, size: int, value):
    write(offset + more, size, value)


# A page with one device at offsets first to end - 1. more: addend for an offset.
@micropython.viper
def _one_read(first: int, end: int, more: int, read, absent, offset: int, size: int) -> int:
    if offset < first or offset >= end:
        return int(absent(offset, size))
    return int(read(offset + more, size))


@micropython.viper
def _one_write(first: int, end: int, more: int, write, absent, offset: int, size: int, value):
    if offset < first or offset >= end:
        absent(offset, size, value)
    else:
        write(offset + more, size, value)


# A page shared by several devices. table: their number, then three words of each as in _place(). The access goes to the
# device of its first byte, as on the bus.
@micropython.viper
def _part_read(table: int, reads, absent, offset: int, size: int) -> int:
    t = ptr32(table)
    n = int(t[0])
    i = 0
    while i < n:
        if offset >= int(t[3 * i + 1]) and offset < int(t[3 * i + 2]):
            return int(reads[i](offset + int(t[3 * i + 3]) & MASK32, size))
        i += 1
    return int(absent(offset, size))


@micropython.viper
def _part_write(table: int, writes, absent, offset: int, size: int, value):
    t = ptr32(table)
    n = int(t[0])
    i = 0
    while i < n:
        if offset >= int(t[3 * i + 1]) and offset < int(t[3 * i + 2]):
            writes[i](offset + int(t[3 * i + 3]) & MASK32, size, value)
            return
        i += 1
    absent(offset, size, value)


# Unclaimed pages, and devices of many pages. page_at: address of the page number. table: the number of devices, then
# the first page and the number of pages of each.


@micropython.viper
def _wide_read(page_at: int, table: int, reads, absent, offset: int, size: int) -> int:
    page = int(ptr32(page_at)[0])
    t = ptr32(table)
    n = int(t[0])
    i = 0
    while i < n:
        within = page - int(t[2 * i + 1])
        if within >= 0 and within < int(t[2 * i + 2]):
            return int(reads[i](within << 12 | offset, size))
        i += 1
    return int(absent(offset, size))


@micropython.viper
def _wide_write(page_at: int, table: int, writes, absent, offset: int, size: int, value):
    page = int(ptr32(page_at)[0])
    t = ptr32(table)
    n = int(t[0])
    i = 0
    while i < n:
        within = page - int(t[2 * i + 1])
        if within >= 0 and within < int(t[2 * i + 2]):
            writes[i](within << 12 | offset, size, value)
            return
        i += 1
    absent(offset, size, value)
