"""The CD drive's commands, and the virtio host that carries them: what drivers ask, and what they must not."""

import random as chance
import struct

import pytest
import rings
import uctypes
from rings import DATA, Driver
from test_virtio_blk import Pages, Slow

from vmm.devices.scsi_cdrom import CHECK_CONDITION, GOOD, ScsiCdrom
from vmm.devices.virtio.device import DRIVER_OK, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from vmm.devices.virtio.scsi import Scsi
from vmm.disks.memory import MemoryDisk

BLOCKS = 40
LUN = bytes((1, 0, 0x40, 0, 0, 0, 0, 0))
RESPONSE = 108
IMAGE = chance.Random(5).randbytes(BLOCKS * 2048)


class Bench:
    def __init__(self):
        self.image = bytearray(IMAGE)
        self.memory = rings.memory()
        disk = MemoryDisk(uctypes.addressof(self.image), len(self.image), "ro", Pages(), b"cd0")
        self.cd = ScsiCdrom(disk, b"cd0")
        self.refused, self.signals = [], []
        self.device = Scsi(self.memory, self.refused.append, self.cd)
        self.device.signal = self.signals.append
        self.device.changed = lambda: None
        self.start()

    def start(self, size=8):
        self.device.write_status(0)
        self.device.write_status(3)
        self.device.accept(0, INDIRECT_DESC)
        self.device.accept(1, VERSION_1 >> 32)
        self.device.write_status(FEATURES_OK | 3)
        self.drivers = [Driver(self.memory, queue, size, 0x4000 * n) for n, queue in enumerate(self.device.queues)]
        for n in range(3):
            self.device.enable(n)
        self.device.write_status(DRIVER_OK)

    def command(self, cdb, room=0, lun=LUN):
        """(response, status, bytes left over, sense data, data)."""
        driver = self.drivers[2]
        self.memory.write(DATA, lun + bytes(11) + cdb.ljust(32, b"\0"))
        self.memory.write(DATA + 0x100, b"\xee" * (RESPONSE + room + 4))
        # Cut where no structure ends.
        parts = [(DATA, 20, False), (DATA + 20, 31, False), (DATA + 0x100, 70, True), (DATA + 0x146, 38 + room, True)]
        driver.chain(0, *parts)
        driver.add(0)
        self.device.notify(2)
        ((head, _),) = driver.back()
        assert head == 0
        back = self.memory.read(DATA + 0x100, RESPONSE + room)
        size, left, _, status, response = struct.unpack_from("<IIHBB", back)
        return response, status, left, back[12 : 12 + size], back[RESPONSE : RESPONSE + room - left]


@pytest.fixture
def bench():
    return Bench()


def read(first, count):
    return struct.pack(">BBIBHB", 0x28, 0, first, 0, count, 0)


def test_what_kind_of_drive_it_is(bench):
    response, status, _, _, data = bench.command(bytes((0x12, 0, 0, 0, 36, 0)), 36)
    assert (response, status) == (0, GOOD) and data[:2] == b"\x05\x80" and data[8:16] == b"PCANEL  " and len(data) == 36
    assert bench.command(bytes((0x12, 1, 0x80, 0, 64, 0)), 64)[4] == b"\5\x80\0\3cd0"
    assert bench.command(bytes((0x25,)), 8)[4] == struct.pack(">II", BLOCKS - 1, 2048)
    assert bench.command(bytes((0,)))[:2] == (0, GOOD)
    assert bench.command(bytes((0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16)), 16)[4] == struct.pack(">II8x", 8, 0)


def test_blocks_are_read(bench):
    assert bench.command(read(3, 2), 4096) == (0, GOOD, 0, b"", IMAGE[6144:10240])
    assert bench.command(read(BLOCKS - 1, 1), 3000) == (0, GOOD, 952, b"", IMAGE[-2048:])
    assert bench.command(struct.pack(">BBIIH", 0xA8, 0, 1, 1, 0), 2048)[4] == IMAGE[2048:4096]
    assert bench.command(read(0, 0), 16)[:3] == (0, GOOD, 16)
    assert bench.signals == [2] * 4


def test_what_is_wrong_is_told(bench):
    for cdb, key, code in ((read(BLOCKS - 1, 2), 5, 0x21), (b"\x2a", 5, 0x20), (bytes((0x12, 1, 0x99)), 5, 0x24)):
        response, status, _, sense, data = bench.command(cdb, 4096)
        assert (response, status, data) == (0, CHECK_CONDITION, b"")
        assert (sense[0], sense[2], sense[12], len(sense)) == (0x70, key, code, 18)
    assert bench.command(bytes((3, 0, 0, 0, 18, 0)), 18)[4][2] == 5
    assert bench.command(bytes((3, 0, 0, 0, 18, 0)), 18)[4][2] == 0
    assert bench.command(read(0, 2), 4095)[0] == 1  # no room for it
    assert bench.command(read(0, 1), 2048, bytes((1, 1, 0x40, 0, 0, 0, 0, 0)))[0] == 3
    assert bench.command(read(0, 1), 2048, bytes((1, 0, 0x40, 1, 0, 0, 0, 0)))[0] == 12


def test_the_table_of_contents(bench):
    toc = bench.command(bytes((0x43, 0, 0, 0, 0, 0, 0, 0, 20)), 20)[4]
    assert toc == struct.pack(">HBB4BI4BI", 18, 1, 1, 0, 0x14, 1, 0, 0, 0, 0x16, 0xAA, 0, BLOCKS)
    msf = bench.command(bytes((0x43, 2, 0, 0, 0, 0, 0, 0, 20)), 20)[4]
    assert msf[8:12] == bytes((0, 0, 2, 0)) and msf[16:20] == bytes((0, 0, 2, 40))
    assert bench.command(bytes((0x43, 0, 1, 0, 0, 0, 0, 0, 12)), 12)[4][:4] == b"\0\x0a\1\1"


def test_random_commands_end(bench):
    random = chance.Random(9)
    for _ in range(2000):
        cdb = bytes((random.choice((0, 3, 0x12, 0x1A, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x51, 0x5A, 0xA0, 0xA8)),))
        cdb += random.randbytes(15)
        response, status, left, _, data = bench.command(cdb, random.choice((0, 7, 4096)))
        assert response in (0, 1) and status in (GOOD, CHECK_CONDITION)
    assert bytes(bench.image) == IMAGE and not bench.refused


def test_random_rings_stop_the_device_only(bench):
    random = chance.Random(3)
    for _ in range(300):
        bench.start()
        rings.nonsense(random, bench.memory)
        for n in range(3):
            bench.device.notify(n)
    assert bytes(bench.image) == IMAGE
    assert all(why.startswith("virtio: ") for why in bench.refused) and bench.refused
    bench.start()
    assert bench.command(read(0, 1), 2048)[4] == IMAGE[:2048]
    assert not bench.device.status & NEEDS_RESET


def test_task_management_answers(bench):
    driver = bench.drivers[0]
    bench.memory.write(DATA, bytes(24))
    bench.memory.write(DATA + 0x100, b"\xee")
    driver.chain(0, (DATA, 24, False), (DATA + 0x100, 1, True))
    driver.add(0)
    bench.device.notify(0)
    assert driver.back() == [(0, 1)] and bench.memory.read(DATA + 0x100, 1) == b"\0"


@pytest.mark.parametrize("seed", range(20))
def test_saved_and_loaded_at_random_moments(seed):
    """Reads of a disk that takes its time: each is given back once, though the device is replaced meanwhile; one that a
    reset has ended moves nothing any more."""
    random = chance.Random(seed)
    bench = Bench()

    def another():
        disk = Slow()
        disk.sectors = BLOCKS * 4
        bench.cd = ScsiCdrom(disk, b"cd0")
        bench.device = Scsi(bench.memory, bench.refused.append, bench.cd)
        bench.device.signal = bench.signals.append
        bench.device.changed = lambda: None
        return disk

    disk = another()
    bench.start(16)
    driver = bench.drivers[2]
    driver.queue = bench.device.queues[2]
    free, given, back = [4 * n for n in range(4)], [], []
    for _ in range(60):
        what = random.choice(("add", "add", "end", "save", "fail"))
        if what == "add" and free:
            head = free.pop(0)
            at = DATA + 0x400 * (head // 4)
            bench.memory.write(at, LUN + bytes(11) + read(head, 1).ljust(32, b"\0"))
            driver.chain(head, (at, 51, False), (at + 0x40, RESPONSE, True), (at + 0x100, 2048, True))
            driver.add(head)
            bench.device.notify(2)
            given.append(head)
        elif what == "end" and disk.under_way:
            disk.under_way.pop(random.randrange(len(disk.under_way)))(True)
        elif what == "fail":
            bench.cd.fail()
        elif what == "save":
            saved, sense, count = bench.device.save(), bench.cd.sense, len(disk.under_way)
            disk = another()
            bench.device.load(saved)
            assert disk.under_way == [] and bench.cd.sense == sense
            bench.device.resume()
            driver.queue = bench.device.queues[2]
            assert len(disk.under_way) == count
        for head, _ in driver.back():
            back.append(head)
            free.append(head)
    late = list(disk.under_way)
    bench.device.write_status(0)
    assert getattr(disk, "cancelled", False) == bool(late)
    for done in late:
        done(True)
    assert bench.refused == []
    assert len(back) + len(late) == len(given) > 3 and len(set(bench.signals)) <= 1
