"""A disk in the host's memory: a boot module that is read and written in place, or whose copy is.

"rw" writes to the module, so that guests which share it see it; "ro" refuses; "scratch" gives a chunk of its own to
each 64 KiB that is written, and forgets them at the guest's power-off.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.queue import BUFFER
from vmm.disks import SECTOR

CHUNK = const(0x10000)
_CHUNK_SHIFT = const(16)
_OWN = const(1)  # of an entry of `table`: this disk's chunk
_PIECE = const(0x8000)  # bytes copied at once: no guest can preempt a copy
_MOST = const(0x10000)  # bytes that quick() moves at once
_STRETCH = const(0x4000)  # and between two looks whether a guest of a higher priority is due
_ENTRIES = const(256)  # of a table that is filled, between two such looks

# Words of `state`
_HPA = const(0)  # of the image, low and high
_TABLE = const(2)  # of 64-bit entries, a chunk each: hpa | _OWN; 0: all is in the image
_BYTES = const(4)
_WORDS = const(6)


class MemoryDisk:
    """hpa, size: the image in host memory, whole sectors of it count. pages: vmm.memory.pages.Pages, for "scratch",
    of which it takes `limit` bytes at most."""

    words = None
    kept = True
    ended = None

    def __init__(self, hpa, size, mode, pages, identity=b"", limit=1 << 62):
        self.sectors = size // SECTOR
        self.read_only = mode == "ro"
        self.identity = identity
        self._pages = pages
        self._limit = limit
        self._chunks = []
        self._table = 0
        size = self.sectors * SECTOR
        self.state = s = array("I", [hpa & 0xFFFFFFFF, hpa >> 32, 0, 0, size & 0xFFFFFFFF, size >> 32])
        self._entries = (size + CHUNK - 1) >> _CHUNK_SHIFT
        if mode == "scratch":
            self._table = pages.take(max(8 * self._entries, 1))
            s[_TABLE], s[_TABLE + 1] = self._table & 0xFFFFFFFF, self._table >> 32
            self.forget()
        self.quick = bind(_move, uctypes.addressof(s))

    @property
    def changed(self):
        """Bytes of chunks that "scratch" has made."""
        return len(self._chunks) << _CHUNK_SHIFT

    def forget(self):
        """What was written to "scratch" is gone."""
        for hpa in self._chunks:
            self._pages.give(hpa)
        self._chunks = []
        if self._table:
            s = self.state
            _fill(self._table, self._entries, s[_HPA] | s[_HPA + 1] << 32)

    def save(self):
        """{number of a chunk: bytes} of what has been written to "scratch"."""
        saved = {}
        for number in range(self._entries if self._table else 0):
            hpa = self._entry(number)
            if hpa & _OWN:
                saved[number] = uctypes.bytes_at(hpa & ~_OWN, CHUNK)
        return saved

    def load(self, saved):
        self.forget()
        for number, data in saved.items():
            uctypes.bytearray_at(self._place(number * CHUNK, 1), CHUNK)[:] = data

    def close(self):
        self.forget()
        if self._table:
            self._pages.give(self._table)
            self._table = 0

    def transfer(self, sector, parts, write, done):
        at = sector * SECTOR
        try:
            for hpa, size in parts:
                while size:
                    piece = min(size, CHUNK - (at & CHUNK - 1), _PIECE)
                    place = self._place(at, write)
                    cpu.copy(place, hpa, piece) if write else cpu.copy(hpa, place, piece)
                    hpa += piece
                    at += piece
                    size -= piece
        except MemoryError:
            done(False)  # no room for a chunk
            return
        done(True)

    def flush(self, done):
        done(True)

    def cancel(self):
        pass

    def _entry(self, number):
        return int.from_bytes(uctypes.bytes_at(self._table + number * 8, 8), "little")

    def _place(self, at, write):
        """The hpa of byte `at`; a chunk of its own for what is written. OutOfMemory."""
        s = self.state
        if not self._table:
            return (s[_HPA] | s[_HPA + 1] << 32) + at
        hpa = self._entry(at >> _CHUNK_SHIFT)
        if write and not hpa & _OWN:
            if self.changed + CHUNK > self._limit:
                raise MemoryError
            mine = self._pages.take(CHUNK)
            self._chunks.append(mine)
            rest = min(CHUNK, self.sectors * SECTOR - (at & ~(CHUNK - 1)))
            for i in range(0, rest, _PIECE):
                cpu.copy(mine + i, hpa + i, min(_PIECE, rest - i))
            hpa = mine | _OWN
            uctypes.bytearray_at(self._table + (at >> _CHUNK_SHIFT) * 8, 8)[:] = hpa.to_bytes(8, "little")
        return (hpa & ~_OWN) + (at & CHUNK - 1)


@micropython.viper
def _fill(table: int, entries: int, hpa: int):
    look = cpu.look
    while entries > 0:
        if entries & (_ENTRIES - 1) == 0:
            look()
        t = ptr32(table)
        t[0] = hpa & 0xFFFFFFFF
        t[1] = hpa >> 32
        table += 8
        hpa += CHUNK
        entries -= 1


@micropython.viper
def _are_own(table: int, first: int, last: int) -> int:
    """Whether all of these chunks may be written to: they are the guest's, not the image's."""
    while first <= last:
        if int(ptr32(table + (first << 3))[0]) & _OWN == 0:
            return 0
        first += 1
    return 1


@micropython.viper
def _move(state: int, sector: int, buffers: int, count: int, write: int, skip: int) -> int:
    """MemoryDisk.quick: at most _MOST bytes, from and to chunks that are there; all in whole sectors, or -1. In the
    middle guests of a higher priority may run."""
    s = ptr32(state)
    b = ptr32(buffers)
    total = 0
    i = 0
    while i < count:
        total += int(b[i * BUFFER + 2])
        i += 1
    at = sector << 9
    if total & SECTOR - 1 or at + total > int(s[_BYTES]) | int(s[_BYTES + 1]) << 32:
        return -1
    left = total - skip
    if left > _MOST:
        left = _MOST
    at += skip
    table = int(s[_TABLE]) | int(s[_TABLE + 1]) << 32
    if table and write:
        if int(_are_own(table, at >> _CHUNK_SHIFT, at + left - 1 >> _CHUNK_SHIFT)) == 0:
            return -1
    base = int(s[_HPA]) | int(s[_HPA + 1]) << 32
    moved = left
    mark = left - _STRETCH
    while left > 0:
        size = int(b[2])
        if skip >= size:
            skip -= size
            buffers += BUFFER * 4
            b = ptr32(buffers)
            continue
        hpa = (int(b[0]) | int(b[1]) << 32) + skip
        piece = size - skip
        if piece > left:
            piece = left
        if piece > _STRETCH:
            piece = _STRETCH
        if table:
            t = ptr32(table + ((at >> _CHUNK_SHIFT) << 3))
            place = int(t[0]) & ~_OWN | int(t[1]) << 32
            place += at & CHUNK - 1
            rest = CHUNK - (at & CHUNK - 1)
            if piece > rest:
                piece = rest
        else:
            place = base + at
        if write:
            cpu.copy(place, hpa, piece)
        else:
            cpu.copy(hpa, place, piece)
        skip += piece
        at += piece
        left -= piece
        if left < mark:
            mark -= _STRETCH
            cpu.look()
    return moved
