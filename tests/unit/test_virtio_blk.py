"""The virtio disk: requests of every cut, and random ones; the disk in memory behind it."""

import random as chance
import struct

import pytest
import rings
import uctypes
from rings import DATA, SIZE, Driver

from vmm.devices.virtio.blk import Blk
from vmm.devices.virtio.device import DRIVER_OK, EVENT_IDX, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from vmm.devices.virtio.mmio import Mmio
from vmm.disks.memory import CHUNK, MemoryDisk

READ, WRITE, FLUSH, GET_ID = 0, 1, 4, 8
OK, IOERR, UNSUPP = 0, 1, 2
SECTORS = 300  # not a whole number of chunks


class Pages:
    """vmm.memory.pages.Pages over bytearrays; `limit` are left."""

    def __init__(self, limit=1000):
        self.limit = limit
        self.taken = {}

    def take(self, size, align=4096):
        if self.limit == 0:
            raise MemoryError("no pages")
        self.limit -= 1
        buffer = bytearray(size)
        address = uctypes.addressof(buffer)
        assert address & 1 == 0
        self.taken[address] = buffer
        return address

    def give(self, hpa):
        del self.taken[hpa]


class Bench:
    def __init__(self, mode="rw", quick=True, pages=None):
        self.image = bytearray(chance.Random(1).randbytes(SECTORS * 512))
        self.before = bytes(self.image)
        self.memory = rings.memory()
        self.pages = pages or Pages()
        self.disk = MemoryDisk(uctypes.addressof(self.image), len(self.image), mode, self.pages, b"serial")
        if not quick:
            self.disk.quick = None
        self.refused = []
        self.signals = []
        self.device = Blk(self.memory, self.refused.append, self.disk)
        self.device.signal = self.signals.append
        self.device.changed = lambda: self.signals.append("changed")
        self.start()

    def start(self, features=VERSION_1 | INDIRECT_DESC):
        self.device.write_status(0)
        self.device.write_status(3)
        self.device.accept(0, features & 0xFFFFFFFF)
        self.device.accept(1, features >> 32)
        self.device.write_status(3 | FEATURES_OK)
        assert self.device.status & FEATURES_OK
        self.driver = Driver(self.memory, self.device.queues[0], 64)
        self.device.enable(0)
        self.device.write_status(3 | FEATURES_OK | DRIVER_OK)

    def request(self, kind, sector, data=(), back=(), header=(16,), status=1):
        """One request with data out and in, in pieces of these sizes: (status byte, bytes read)."""
        self.memory.write(0x8000, struct.pack("<IIQ", kind, 0, sector))
        self.memory.write_u8(0x9000, 0xEE)
        parts, at = [], 0x8000
        for size in header:
            parts.append((at, size, 0))
            at += size
        at = DATA
        for piece in data:
            self.memory.write(at, piece)
            parts.append((at, len(piece), 0))
            at += len(piece)
        start = at
        for size in back:
            parts.append((at, size, 1))
            at += size
        if status:
            parts.append((0x9000, 1, 1))
        self.driver.chain(0, *parts)
        self.driver.add(0)
        self.device.kicks[0]()
        self.written = self.driver.back()
        return self.memory.read_u8(0x9000), self.memory.read(start, at - start)


@pytest.mark.parametrize("quick", [True, False])
def test_reads_and_writes(quick):
    b = Bench(quick=quick)
    status, data = b.request(READ, 7, back=(512, 1024))
    assert status == OK and data == b.before[7 * 512 : 10 * 512] and b.written == [(0, 1537)]
    assert b.signals == [0]
    new = bytes(range(256)) * 2
    assert b.request(WRITE, 9, data=(new[:100], new[100:]))[0] == OK and b.written == [(0, 1)]
    assert b.image[9 * 512 : 10 * 512] == new and b.image[10 * 512 :] == b.before[10 * 512 :]
    assert b.device.counts == (1, 3, 1, 1)
    assert b.request(FLUSH, 0)[0] == OK


@pytest.mark.parametrize("quick", [True, False])
def test_more_than_one_step_moves(quick):
    b = Bench(quick=quick)
    sizes = (0x4000,) * 9
    status, data = b.request(READ, 3, back=sizes)
    assert status == OK and data == b.before[3 * 512 : 3 * 512 + sum(sizes)] and b.written == [(0, sum(sizes) + 1)]


@pytest.mark.parametrize("header", [(16,), (8, 8), (1, 15), (4, 4, 4, 4)])
def test_the_header_may_be_cut(header):
    b = Bench()
    assert b.request(READ, 1, back=(512,), header=header) == (OK, b.before[512:1024])


def test_header_with_data_and_data_with_status():
    b = Bench()
    b.memory.write(0x8000, struct.pack("<IIQ", WRITE, 0, 5) + bytes(512))
    b.driver.chain(0, (0x8000, 528, 0), (0x9000, 1, 1))
    b.driver.add(0)
    b.memory.write(0x8400, struct.pack("<IIQ", READ, 0, 6))
    b.driver.chain(4, (0x8400, 16, 0), (DATA, 513, 1))
    b.driver.add(4)
    b.device.kicks[0]()
    assert b.driver.back() == [(0, 1), (4, 513)]
    assert b.image[5 * 512 : 6 * 512] == bytes(512)
    assert b.memory.read(DATA, 513) == b.before[6 * 512 : 7 * 512] + b"\0"


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    "kind, sector, data, back, status",
    [
        (READ, SECTORS, (), (512,), IOERR), (READ, SECTORS - 1, (), (1024,), IOERR), (READ, 0, (), (511,), IOERR),
        (READ, (1 << 64) - 1, (), (512,), IOERR), (READ, 1 << 55, (), (512,), IOERR),
        (WRITE, SECTORS, (bytes(512),), (), IOERR), (WRITE, 0, (bytes(100),), (), IOERR),
        (99, 0, (), (512,), UNSUPP), (11, 0, (bytes(16),), (), UNSUPP),
    ],
)  # fmt: skip
def test_what_cannot_be_done(kind, sector, data, back, status, quick):
    b = Bench(quick=quick)
    assert b.request(kind, sector, data, back)[0] == status
    assert b.image == b.before and len(b.written) == 1


def test_read_only():
    b = Bench("ro")
    assert b.device.features & 1 << 5
    assert b.request(WRITE, 0, data=(bytes(512),))[0] == IOERR
    assert b.request(READ, 0, back=(512,)) == (OK, b.before[:512])
    assert b.image == b.before


def test_identity():
    b = Bench()
    assert b.request(GET_ID, 0, back=(20,)) == (OK, b"serial" + bytes(14))


@pytest.mark.parametrize("quick", [True, False])
def test_scratch_is_written_to_chunks_of_its_own(quick):
    b = Bench("scratch", quick)
    edge = CHUNK // 512
    assert b.request(WRITE, edge - 1, data=(b"a" * 1024,))[0] == OK
    assert b.image == b.before and b.disk.changed == 2 * CHUNK
    status, data = b.request(READ, edge - 2, back=(2048,))
    before = b.before[(edge - 2) * 512 : (edge + 2) * 512]
    assert (status, data) == (OK, before[:512] + b"a" * 1024 + before[-512:])
    assert b.request(WRITE, SECTORS - 1, data=(b"z" * 512,))[0] == OK  # the last chunk is shorter
    assert b.request(READ, SECTORS - 1, back=(512,))[1] == b"z" * 512
    b.disk.forget()
    assert b.request(READ, edge - 1, back=(512,))[1] == b.before[(edge - 1) * 512 : edge * 512]
    b.disk.close()
    assert not b.pages.taken


def test_no_memory_for_a_chunk_is_an_error_of_the_disk():
    b = Bench("scratch", pages=Pages(limit=1))
    assert b.request(WRITE, 0, data=(bytes(512),))[0] == IOERR
    assert b.request(READ, 0, back=(512,)) == (OK, b.before[:512])


def test_a_broken_ring_asks_for_a_reset():
    b = Bench()
    b.driver.describe(0, SIZE, 16)
    b.driver.add(0)
    b.device.kicks[0]()
    assert b.device.status & NEEDS_RESET and b.signals == ["changed"] and "outside RAM" in b.refused[0]
    assert b.driver.back() == []
    b.start()
    assert b.request(READ, 0, back=(512,)) == (OK, b.before[:512])


@pytest.mark.parametrize("parts", [((0x8000, 16, 0),), ((0x8000, 8, 0), (0x9000, 1, 1)), ((0x9000, 1, 1),)])
def test_requests_without_header_or_status(parts):
    b = Bench()
    b.driver.chain(0, *parts)
    b.driver.add(0)
    b.device.kicks[0]()
    assert b.device.status & NEEDS_RESET and len(b.refused) == 1


def test_features_are_checked():
    b = Bench()
    b.device.write_status(0)
    b.device.write_status(3)
    b.device.accept(0, 1 << 4)
    b.device.accept(1, 1)
    b.device.write_status(3 | FEATURES_OK)
    assert not b.device.status & FEATURES_OK  # one that was not offered
    b.device.accept(0, 0)
    b.device.accept(1, 0)
    b.device.write_status(3 | FEATURES_OK)
    assert not b.device.status & FEATURES_OK  # not of version 1
    b.device.notify(0)
    b.device.notify(77)


class Slow:
    """A disk that ends what it is asked for later, in any order."""

    sectors, read_only, identity, quick, words = 16, False, b"", None, None

    def __init__(self):
        self.under_way = []

    def transfer(self, sector, parts, write, done):
        self.under_way.append(done)

    def flush(self, done):
        self.under_way.append(done)

    def cancel(self):
        self.cancelled = True


def test_requests_end_in_any_order_and_not_after_a_reset():
    b = Bench()
    b.disk = Slow()
    b.device = Blk(b.memory, b.refused.append, b.disk)
    b.device.signal = b.signals.append
    b.device.changed = lambda: None
    b.start(VERSION_1 | EVENT_IDX)
    for head, status in ((0, 0x9000), (4, 0x9001)):
        b.memory.write(0x8000 + head, struct.pack("<IIQ", READ, 0, 0))
        b.driver.chain(head, (0x8000 + head, 16, 0), (DATA, 512, 1), (status, 1, 1))
        b.driver.add(head)
    b.device.kicks[0]()
    assert b.device.waiting == 2 and b.driver.back() == []
    first, second = b.disk.under_way
    second(True)
    assert b.driver.back() == [(4, 513)]
    b.start()
    assert b.disk.cancelled
    first(False)
    assert b.device.waiting == 0 and b.driver.used_index() == 1 and b.memory.read_u8(0x9000) == 0


@pytest.mark.parametrize("cancels", [True, False])
def test_a_queue_that_is_disabled_gets_nothing_back(cancels):
    """By registers in memory a driver can disable a queue while the disk has requests. Even if one ended then, it
    must not be written to where a queue without an address would have its used ring: at address 0 of the host."""
    b = Bench()
    b.disk = Slow()
    b.device = Blk(b.memory, b.refused.append, b.disk)
    transport = Mmio(b.device, b.signals.append)
    b.start()
    b.memory.write(0x8000, struct.pack("<IIQ", READ, 0, 0))
    b.memory.write_u8(0x9000, 0xEE)
    b.driver.chain(0, (0x8000, 16, 0), (DATA, 512, 1), (0x9000, 1, 1))
    b.driver.add(0)
    transport.write(0x50, 4, 0)
    assert b.device.waiting == 1
    if cancels:
        transport.write(0x44, 4, 0)
        assert b.disk.cancelled and b.device.waiting == 0 and transport.read(0x44, 4) == 0
    else:
        b.device.queues[0].reset()
    b.signals.clear()
    b.disk.under_way.pop()(True)
    assert b.driver.used_index() == 0 and b.signals == []
    assert b.memory.read_u8(0x9000) == (0xEE if cancels else 0)
    b.start()
    b.driver.chain(0, (0x8000, 16, 0), (DATA, 512, 1), (0x9000, 1, 1))
    b.driver.add(0)
    transport.write(0x50, 4, 0)
    b.disk.under_way.pop()(True)
    assert b.driver.used_index() == 1


@pytest.mark.parametrize("seed", range(60))
def test_random_rings(seed):
    """Whatever a driver writes: the disk changes only where a request says so, and a reset mends all."""
    random = chance.Random(seed)
    b = Bench(random.choice(("ro", "rw", "scratch")), random.choice((True, False)))
    for _ in range(10):
        rings.nonsense(random, b.memory)
        b.device.queues[0].size = 8
        for at in range(0x8000, 0x8100, 16):
            kind, sector = random.choice((0, 1, 4, 8, 11)), random.choice((0, 5, SECTORS, 1 << 63))
            b.memory.write(at, struct.pack("<IIQ", kind, 0, sector))
        b.device.kicks[0]()
        if b.device.status & NEEDS_RESET:
            assert b.refused
            b.start()
    if b.disk.read_only:
        assert b.image == b.before
    b.start()
    assert b.request(READ, 0, back=(512,))[0] == OK


def test_a_saved_device_goes_on():
    b = Bench()
    b.request(READ, 0, back=(512,))
    saved = b.device.save()
    other = Blk(b.memory, b.refused.append, b.disk)
    other.signal = b.signals.append
    other.load(saved)
    b.device = other
    b.driver.queue = other.queues[0]
    assert b.request(READ, 2, back=(512,)) == (OK, b.before[1024:1536])


def test_what_nobody_was_told_of_is_found_after_a_load():
    """A notification was put off, or is on its way: with the event index no other follows it."""
    b = Bench()
    b.start(VERSION_1 | EVENT_IDX)
    b.memory.write(0x8000, struct.pack("<IIQ", READ, 0, 1))
    b.driver.chain(0, (0x8000, 16, 0), (DATA, 512, 1), (0x9000, 1, 1))
    b.driver.add(0)
    b.device.load(b.device.save())
    assert b.driver.back() == []
    b.device.resume()
    assert b.driver.back() == [(0, 513)] and b.memory.read(DATA, 512) == b.before[512:1024] and b.signals == [0]


@pytest.mark.parametrize("seed", range(30))
def test_saved_and_loaded_at_random_moments(seed):
    """Requests to a disk that takes its time: each is given back once, though the device is replaced meanwhile."""
    random = chance.Random(seed)
    b = Bench()

    def another():
        b.disk = Slow()
        b.device = Blk(b.memory, b.refused.append, b.disk)
        b.device.signal = b.signals.append
        b.device.changed = lambda: None

    another()
    b.start(VERSION_1 | EVENT_IDX | INDIRECT_DESC)
    free, given, back = [4 * n for n in range(16)], [], []

    def look():
        for head, _ in b.driver.back():
            back.append(head)
            free.append(head)

    for _ in range(60):
        what = random.choice(("add", "add", "end", "save"))
        if what == "add" and free:
            head = free.pop(0)
            header, status = 0x8000 + 4 * head, 0x9000 + head
            b.memory.write(header, struct.pack("<IIQ", random.choice((READ, FLUSH)), 0, head // 4))
            b.driver.chain(head, (header, 16, 0), (DATA, 512, 1), (status, 1, 1))
            b.driver.add(head)
            b.device.kicks[0]()
            given.append(head)
        elif what == "end" and b.disk.under_way:
            b.disk.under_way.pop(random.randrange(len(b.disk.under_way)))(True)
        elif what == "save":
            saved = b.device.save()
            another()
            b.device.load(saved)
            assert b.disk.under_way == []  # it may raise an interrupt, and the interrupt controllers are loaded last
            b.device.resume()
            b.driver.queue = b.device.queues[0]
            assert b.device.waiting == len(b.disk.under_way)
        look()
    while b.disk.under_way:
        b.disk.under_way.pop()(True)
    look()
    assert sorted(back) == sorted(given) and len(given) > 3
