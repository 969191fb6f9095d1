"""A virtio disk that is a disk of the machine by ATA: what its driver adds is served at once, or as the disk seeks."""

import random as chance
import struct
from types import SimpleNamespace

import pytest
import rings
import uctypes
from atas import Io
from rings import Driver
from test_scratch import Pages

from vmm.devices.virtio.blk import Blk
from vmm.devices.virtio.device import DRIVER_OK, FEATURES_OK, INDIRECT_DESC, NEEDS_RESET, VERSION_1
from vmm.disks.host import HostDisk, Scratch
from vmm.host import READ as HOST_READ
from vmm.host import Request, words_of
from vmm.host.ata import Channel
from vmm.host.pio import INSIDE, TAKEN

READ, WRITE, FLUSH = 0, 1, 4
OK, IOERR = 0, 1
SECTORS = 500
STEP = 0x1000  # memory of each request: its header, its status, its data
PLACES = 32
HEADERS, STATUS, DATA = 0x8000, 0x9000, 0x10000


class Scheduler:
    later = 0

    def poll_later(self):
        self.later += 1

    def serve(self, vm, work):
        return work()


class Bench:
    def __init__(self, mode="rw", **how):
        self.io = Io(bytearray(chance.Random(3).randbytes(SECTORS * 512)), **how)
        self.model = bytearray(self.io.content)
        self.scheduler = Scheduler()
        self.channel = Channel(self.io, self.scheduler, 0x1F0, 0x3F6, 14)
        (self.drive,) = self.channel.probe()
        self.memory = rings.memory()
        self.vm = SimpleNamespace(priority=0, name="guest")
        if mode == "scratch":
            self.disk = Scratch(self.vm, None, self.drive, Pages(), 1 << 20)
        else:
            self.disk = HostDisk(self.vm, None, self.drive, mode)
        self.signals, self.refused = [], []
        self.device = Blk(self.memory, self.refused.append, self.disk)
        self.device.signal = self.signals.append
        self.device.changed = lambda: None
        self.start()

    def start(self):
        self.device.write_status(0)
        self.device.write_status(3)
        self.device.accept(0, INDIRECT_DESC)
        self.device.accept(1, VERSION_1 >> 32)
        self.device.write_status(3 | FEATURES_OK)
        self.driver = Driver(self.memory, self.device.queues[0], 256)
        self.device.enable(0)
        self.device.write_status(3 | FEATURES_OK | DRIVER_OK)

    def add(self, place, kind, sector, sectors=0, data=b""):
        """A request in one of the places; its head is 4 times that."""
        header, at = HEADERS + 16 * place, DATA + STEP * place
        self.memory.write(header, struct.pack("<IIQ", kind, 0, sector))
        self.memory.write_u8(STATUS + place, 0xEE)
        self.memory.write(at, data or bytes(512 * sectors))
        middle = [(at, 512 * sectors, 1 if kind == READ else 0)] if sectors else []
        self.driver.chain(4 * place, (header, 16, 0), *middle, (STATUS + place, 1, 1))
        self.driver.add(4 * place)

    def kick(self):
        self.device.kicks[0]()

    def wait(self, count):
        """Until so many have come back: [(place, status, bytes written)]."""
        back = []
        for _ in range(100000):
            back += self.driver.back()
            if len(back) >= count:
                return [(head // 4, self.memory.read_u8(STATUS + head // 4), written) for head, written in back]
            self.channel.look(0)
        raise AssertionError(f"{back} alone came back")

    def data(self, place, sectors):
        return self.memory.read(DATA + STEP * place, 512 * sectors)


@pytest.mark.parametrize("how", [{}, {"seeks": 100}, {"long": False}])
def test_a_read_a_write_and_a_flush(how):
    b = Bench(**how)
    b.add(0, READ, 7, 8)
    b.kick()
    assert b.wait(1) == [(0, OK, 4097)] and b.data(0, 8) == b.model[7 * 512 : 15 * 512]
    new = chance.Random(5).randbytes(1024)
    b.add(1, WRITE, 30, 2, new)
    b.add(2, FLUSH, 0)
    b.kick()
    assert b.wait(2) == [(1, OK, 1), (2, OK, 1)]
    assert b.io.content[30 * 512 : 32 * 512] == new and b.io.flushed == b.io.content
    assert b.device.counts == (1, 8, 1, 2) and b.device.waiting == 0


def test_what_is_there_at_once_makes_no_objects():
    """Nothing is left to the driver's bytecode: that would be 60,000 ticks a request."""
    b = Bench()
    b.drive.submit = None
    for place in range(5):
        b.add(place, READ, place, 2)
    b.kick()
    assert [place for place, _, _ in b.wait(5)] == list(range(5)) and b.signals == [0]


def test_while_the_disk_seeks_further_requests_stay_in_the_ring():
    b = Bench(seeks=100)
    b.drive.submit = None
    for place in range(5):
        b.add(place, READ, place, 2)
    b.kick()
    assert b.device.waiting == 1 and b.driver.back() == [] and b.device.queues[0].save()["next"] == 1
    b.kick()
    assert b.device.waiting == 1
    assert [place for place, _, _ in b.wait(5)] == list(range(5))
    assert all(b.data(place, 2) == b.model[512 * place : 512 * place + 1024] for place in range(5))
    assert b.io.at > 0  # the time limit


def test_a_reset_forgets_what_is_under_way():
    b = Bench(seeks=100)
    b.add(0, WRITE, 3, 1, bytes(512))
    b.add(1, READ, 4, 2)
    b.kick()
    assert b.device.waiting == 1
    b.start()
    assert b.device.waiting == 0 and b.channel._state[TAKEN] == b.channel._state[INSIDE] == 0
    b.driver.seen = b.driver.used_index()
    b.add(2, READ, 9, 2)
    b.kick()
    assert b.wait(1) == [(2, OK, 1025)] and b.data(2, 2) == b.model[9 * 512 : 11 * 512]


def test_what_was_under_way_is_asked_for_again_after_a_load():
    b = Bench(seeks=100)
    b.add(0, READ, 4, 2)
    b.add(1, READ, 6, 2)
    b.kick()
    saved = b.device.save()
    assert saved["under_way"] == [0]
    b.device.load(saved)
    b.device.resume()
    assert sorted(b.wait(2)) == [(0, OK, 1025), (1, OK, 1025)]


@pytest.mark.parametrize("seeks", [0, 100])
def test_an_error_is_of_its_request_alone(seeks):
    b = Bench(seeks=seeks)
    b.io.failing = {50}
    b.add(0, READ, 48, 4)
    b.add(1, READ, 60, 1)
    b.add(2, READ, SECTORS - 1, 2)
    b.kick()
    assert sorted(b.wait(3)) == [(0, IOERR, 1), (1, OK, 513), (2, IOERR, 1)]


def test_a_disk_that_does_not_answer():
    b = Bench(seeks=5)
    b.io.dead = True
    b.add(0, READ, 0, 1)
    b.kick()
    assert b.device.waiting == 1 and b.io.at < b.io.now + 21 * b.io.tsc_hz
    b.io.now += 21 * b.io.tsc_hz
    assert b.wait(1) == [(0, IOERR, 1)] and b.channel.timeouts == 1
    b.add(0, READ, 0, 1)
    b.kick()
    assert b.wait(1) == [(0, OK, 513)]


def test_requests_of_others_on_the_channel():
    """One that comes in the middle of a request waits, and one that comes while another is waited for."""
    b = Bench(seeks=100)
    other = SimpleNamespace(vm=SimpleNamespace(priority=3), ended=None)
    space, answers = bytearray(1024), []

    def submit(sector):
        words, sectors = words_of([(uctypes.addressof(space), 1024)])
        b.drive.submit(Request(other, HOST_READ, sector, words, sectors, answers.append))

    submit(70)
    b.add(0, READ, 4, 2)
    b.kick()
    b.add(1, READ, 6, 2)
    b.kick()
    assert sorted(b.wait(2)) == [(0, OK, 1025), (1, OK, 1025)] and answers == [True]
    assert bytes(space) == b.model[70 * 512 : 72 * 512]

    b.io.seeks = 0
    moves = b.io.insl

    def interrupted(*args):
        b.io.insl = moves
        submit(90)
        assert len(answers) == 1
        moves(*args)

    b.io.insl = interrupted
    before = b.scheduler.later
    b.add(2, READ, 8, 2)
    b.kick()
    assert b.wait(1) == [(2, OK, 1025)] and b.data(2, 2) == b.model[8 * 512 : 10 * 512]
    assert b.scheduler.later == before + 1
    b.channel.look(0)
    assert answers == [True, True] and bytes(space) == b.model[90 * 512 : 92 * 512]


def test_a_read_of_nothing_sends_no_command():
    b = Bench()
    before = len(b.io.commands)
    answers = []
    words, _ = words_of([])
    b.drive.submit(Request(b.disk, HOST_READ, 5, words, 0, answers.append))
    assert answers == [True] and len(b.io.commands) == before


@pytest.mark.parametrize("mode", ["rw", "scratch"])
@pytest.mark.parametrize("seed", range(20))
def test_random_requests(seed, mode):
    random = chance.Random(seed)
    b = Bench(mode, seeks=random.choice((0, 3, 100)), block=random.choice((1, 4, 16)))
    before = bytes(b.model)
    for _ in range(20):
        expected = {}
        for place in random.sample(range(PLACES), random.randrange(1, 8)):
            kind, sectors = random.choice((READ, READ, WRITE, FLUSH)), random.choice((1, 2, 8))
            sector = 12 * place + random.randrange(4)  # those that are under way together do not overlap
            if kind == FLUSH:
                b.add(place, FLUSH, 0)
                expected[place] = 1, None
            elif kind == WRITE:
                data = random.randbytes(512 * sectors)
                b.add(place, WRITE, sector, sectors, data)
                b.model[512 * sector : 512 * (sector + sectors)] = data
                expected[place] = 1, None
            else:
                b.add(place, READ, sector, sectors)
                expected[place] = 512 * sectors + 1, bytes(b.model[512 * sector : 512 * (sector + sectors)])
            if random.random() < 0.5:
                b.kick()
            if random.random() < 0.3:
                b.channel.look(0)
        b.kick()
        back = b.wait(len(expected))
        assert sorted(place for place, _, _ in back) == sorted(expected)
        for place, status, written in back:
            assert (status, written) == (OK, expected[place][0])
            if expected[place][1] is not None:
                assert b.data(place, written // 512) == expected[place][1]
    assert b.io.content == (before if mode == "scratch" else b.model) and not b.device.status & NEEDS_RESET
    if mode == "scratch":
        b.disk.forget()
        b.add(0, READ, 300, 8)
        b.kick()
        assert b.wait(1) and b.data(0, 8) == before[300 * 512 : 308 * 512]
