"""A scratch disk over a drive: what is written is read again, wherever it lies, and the drive keeps what it had."""

import ctypes

from hypothesis import given
from hypothesis import strategies as st

from vmm.disks import SECTOR
from vmm.disks.host import _CHUNK as CHUNK
from vmm.disks.host import Scratch
from vmm.host import READ, parts_of, words_of

SECTORS = 5 * CHUNK // SECTOR - 3  # its last chunk is not whole
IMAGE = bytes(i * 7 + i // SECTOR & 0xFF for i in range(SECTORS * SECTOR))
MOST = 3 * CHUNK // SECTOR


class Drive:
    """Answers a read at once, or when told to."""

    sectors = SECTORS

    def __init__(self):
        self.requests = 0
        self.waiting = []
        self.slow = False

    def quick(self, _owner):
        return None

    def submit(self, request):
        assert request.kind == READ
        self.requests += 1
        self.waiting.append(request)
        if not self.slow:
            self.answer()

    def answer(self):
        request = self.waiting.pop(0)
        at = request.sector * SECTOR
        for hpa, size in parts_of(request.words):
            ctypes.memmove(hpa, IMAGE[at : at + size], size)
            at += size
        assert at == (request.sector + request.left) * SECTOR
        request.done(True)

    def cancel(self, _owner):
        self.waiting.clear()


class Pages:
    def __init__(self):
        self.taken = {}

    def take(self, size):
        buffer = ctypes.create_string_buffer(size)
        self.taken[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def give(self, hpa):
        del self.taken[hpa]


class Bench:
    def __init__(self):
        self.drive, self.pages = Drive(), Pages()
        self.disk = Scratch(None, None, self.drive, self.pages, 8 * CHUNK)
        self.content = bytearray(IMAGE)

    def move(self, sector, sectors, write, data=b"", cuts=1):
        """By words(), in buffers of whole sectors; what was read."""
        sizes = [sectors // cuts * SECTOR] * (cuts - 1)
        sizes.append(sectors * SECTOR - sum(sizes))
        buffers, at = [], 0
        for size in sizes:
            buffers.append(ctypes.create_string_buffer(data[at : at + size], size))
            at += size
        words, count = words_of([(ctypes.addressof(b), len(b)) for b in buffers])
        assert count == sectors
        ended = []
        self.disk.words(sector, words, sectors, write, ended.append)
        while self.drive.waiting:
            self.drive.answer()
        assert ended == [True]
        if write:
            self.content[sector * SECTOR : (sector + sectors) * SECTOR] = data
        return b"".join(b.raw for b in buffers)


REQUESTS = st.lists(
    st.tuples(st.integers(0, SECTORS - 1), st.integers(1, MOST), st.integers(1, 3), st.none() | st.integers(0, 255)),
    min_size=1,
    max_size=8,
)


@given(REQUESTS, st.booleans())
def test_reads_and_writes_in_any_order(requests, slow):
    bench = Bench()
    bench.drive.slow = slow
    for sector, size, cuts, value in requests:
        sectors = min(size, SECTORS - sector)
        cuts = min(cuts, sectors)
        if value is not None:
            bench.move(sector, sectors, 1, bytes([value]) * (sectors * SECTOR), cuts)
        else:
            assert bench.move(sector, sectors, 0, cuts=cuts) == bench.content[sector * SECTOR :][: sectors * SECTOR]
    assert bench.move(0, SECTORS, 0) == bench.content
    bench.disk.forget()
    assert bench.pages.taken == {}
    assert bench.move(0, SECTORS, 0) == IMAGE


def test_what_has_not_been_written_is_one_request():
    bench = Bench()
    bench.move(0, 3, 1, bytes(3 * SECTOR))
    before = bench.drive.requests
    bench.move(CHUNK // SECTOR + 1, MOST, 0)
    assert bench.drive.requests == before + 1
    bench.move(CHUNK // SECTOR - 1, 2, 0)  # one of each
    assert bench.drive.requests == before + 2
    assert bench.move(0, 3, 0) == bytes(3 * SECTOR)
    assert bench.drive.requests == before + 2
