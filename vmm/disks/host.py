"""A guest's disk on a disk of the host (vmm/host): writes are durable when the guest's flush has ended.

Scratch keeps writes in memory, in chunks of 64 KiB up to its limit, and drops them at the guest's power-off.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.queue import BUFFER
from vmm.disks import SECTOR
from vmm.host import FLUSH, READ, WRITE, Request, parts_of, words_of
from vmm.memory.guest import PIECE

_CHUNK = const(0x10000)
_SECTORS = const(_CHUNK // SECTOR)
_NOTHING = array("I")
_MARKS = const(4096)
_MOST = const(16)  # chunks of a fast read


class HostDisk:
    """drive: of vmm.host; drives: vmm.host.drives.Drives, to which close() returns it."""

    changed = 0
    kept = False

    def __init__(self, vm, drives, drive, mode, identity=b""):
        self.vm = vm
        self.drive = drive
        self._drives = drives
        self.sectors = drive.sectors
        self.read_only = mode == "ro"
        self.identity = identity
        self.quick = drive.quick(self)
        self.ended = None

    def transfer(self, sector, parts, write, done):
        words, sectors = words_of(parts)
        self.words(sector, words, sectors, write, done)

    def words(self, sector, words, sectors, write, done):
        """transfer() of the buffers of a virtqueue's chain."""
        self.drive.submit(Request(self, WRITE if write else READ, sector, words, sectors, done))

    def flush(self, done):
        self.drive.submit(Request(self, FLUSH, 0, _NOTHING, 0, done))

    def save(self):
        return {}

    def load(self, saved):
        pass

    def cancel(self):
        self.drive.cancel(self)

    def forget(self):
        self.cancel()

    def close(self):
        self.cancel()
        self._drives.give(self.drive, self.vm)


class Scratch(HostDisk):
    """pages: vmm.memory.pages.Pages; limit: bytes of memory at most."""

    kept = True

    def __init__(self, vm, drives, drive, pages, limit, identity=b""):
        HostDisk.__init__(self, vm, drives, drive, "scratch", identity)
        self._pages = pages
        self._limit = limit
        self._chunks = {}  # number -> hpa
        self._marks = bytearray(_MARKS)  # 1 at the numbers of chunks, modulo its length
        if self.quick:
            self.quick = bind(_unwritten, uctypes.addressof(self._marks), self.quick)
        self._loading = []  # hpa of a chunk that is being read before it is written to
        self._writes = []  # executed in order, so that no two create the same chunk
        self._busy = False

    @property
    def changed(self):
        """Bytes of memory in use."""
        return (len(self._chunks) + len(self._loading)) * _CHUNK

    def transfer(self, sector, parts, write, done):
        transfer = _Transfer(self, list(_by_chunks(sector, parts)), write, done)
        if write:
            self._writes.append(transfer)
            self.go_on()
        else:
            transfer.go_on(True)

    def words(self, sector, words, sectors, write, done):
        """A read without written chunks is one request to the drive: most reads of a booting guest are."""
        if write or self._has(sector, sectors):
            self.transfer(sector, parts_of(words), write, done)
        else:
            HostDisk.words(self, sector, words, sectors, write, done)

    def _has(self, sector, sectors):
        """Whether a written chunk is among these sectors."""
        chunks = self._chunks
        if chunks:
            for number in range(sector // _SECTORS, (sector + sectors - 1) // _SECTORS + 1):
                if number in chunks:
                    return True
        return False

    def go_on(self):
        """Execute writes until one waits for the drive."""
        if self._busy:
            return
        self._busy = True
        while self._writes:
            first = self._writes[0]
            if not first.began:
                first.go_on(True)
            if not first.ended:
                break
            self._writes.pop(0)
        self._busy = False

    def flush(self, done):
        done(True)

    def cancel(self):
        HostDisk.cancel(self)
        self._writes = []
        for hpa in self._loading:
            self._pages.give(hpa)
        self._loading = []

    def forget(self):
        self.cancel()
        for hpa in self._chunks.values():
            self._pages.give(hpa)
        self._chunks = {}
        cpu.zero(uctypes.addressof(self._marks), _MARKS)

    def close(self):
        self.forget()
        HostDisk.close(self)

    def save(self):
        """{number of a chunk: bytes} of what has been written."""
        return {number: uctypes.bytes_at(hpa, _CHUNK) for number, hpa in self._chunks.items()}

    def load(self, saved):
        self.forget()
        for number, data in saved.items():
            hpa = self._pages.take(_CHUNK)
            self._add(number, hpa)
            uctypes.bytearray_at(hpa, _CHUNK)[:] = data

    def _add(self, number, hpa):
        self._chunks[number] = hpa
        self._marks[number % _MARKS] = 1

    def own(self, number):
        """The hpa of a chunk that has been written, or None."""
        return self._chunks.get(number)

    def fill(self, number, whole, done):
        """Create a chunk, with the drive's contents unless the whole of it is written next. MemoryError."""
        if self.changed + _CHUNK > self._limit:
            raise MemoryError
        hpa = self._pages.take(_CHUNK)
        self._loading.append(hpa)

        def loaded(ok):
            self._loading.remove(hpa)
            if ok:
                self._add(number, hpa)
            else:
                self._pages.give(hpa)
            done(ok)

        if whole:
            loaded(True)
            return
        first = number * _SECTORS
        self.read(first, [(hpa, min(_CHUNK, (self.sectors - first) * SECTOR))], loaded)

    def read(self, sector, parts, done):
        """Read from the drive."""
        words, sectors = words_of(parts)
        self.drive.submit(Request(self, READ, sector, words, sectors, done))


class _Transfer:
    """A transfer, chunk by chunk. began, ended: whether it has."""

    def __init__(self, disk, pieces, write, done):
        self._disk = disk
        self._pieces = pieces
        self._write = write
        self._done = done
        self._answer = None  # of the step that has ended
        self._inside = False
        self.began = self.ended = False

    def go_on(self, ok):
        """A step has ended. Not recursive: the drive may answer at once."""
        self.began = True
        self._answer = ok
        if self._inside:
            return
        self._inside = True
        while self._answer is not None:
            ok, self._answer = self._answer, None
            if not ok or not self._pieces:
                self.ended = True
                self._done(ok)
                self._disk.go_on()
                break
            self._next()
        self._inside = False

    def _next(self):
        disk = self._disk
        sector, parts, size = self._pieces[0]
        number, within = sector // _SECTORS, sector % _SECTORS * SECTOR
        own = disk.own(number)
        if own is None and self._write:
            try:
                disk.fill(number, size == _CHUNK, self.go_on)
            except MemoryError:
                self._answer = False
            return
        self._pieces.pop(0)
        if own is None:
            disk.read(sector, parts, self.go_on)
            return
        _copy(own + within, parts, self._write)
        self._answer = True


@micropython.viper
def _unwritten(marks: ptr8, quick, sector: int, buffers: int, count: int, write: int, skip: int) -> int:
    """Scratch.quick: reads without written chunks."""
    if write:
        return -1
    b = ptr32(buffers)
    last = sector << 9
    i = 0
    while i < BUFFER * count:
        last += int(b[i + 2])
        i += BUFFER
    last = (last - 1) // _CHUNK
    number = (sector << 9) // _CHUNK
    if last - number > _MOST:
        return -1
    while number <= last:
        if marks[number & _MARKS - 1]:
            return -1
        number += 1
    return int(quick(sector, buffers, count, write, skip))


def _copy(at, parts, write):
    """Copy between memory at `at` and [(hpa, bytes), ...]."""
    for hpa, size in parts:
        for i in range(0, size, PIECE):
            some = min(PIECE, size - i)
            if write:
                cpu.copy(at + i, hpa + i, some)
            else:
                cpu.copy(hpa + i, at + i, some)
        at += size


def _by_chunks(sector, parts):
    """(sector, [(hpa, bytes), ...], bytes in all) of each chunk that the transfer touches."""
    room = _CHUNK - sector % _SECTORS * SECTOR
    mine, size = [], 0
    for hpa, length in parts:
        while length:
            piece = min(length, room)
            mine.append((hpa, piece))
            hpa += piece
            length -= piece
            room -= piece
            size += piece
            if not room:
                yield sector, mine, size
                sector += size // SECTOR
                room, mine, size = _CHUNK, [], 0
    if mine:
        yield sector, mine, size
