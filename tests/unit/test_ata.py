"""The driver of ATA disks on a modelled disk: requests of every cut, waiting, errors, several guests."""

import ctypes
import random as chance

import pytest
from atas import Io

from vmm.host import FLUSH, READ, WRITE, Request, words_of
from vmm.host.ata import Channel

SECTORS = 700


class Guest:
    def __init__(self, priority=0):
        self.priority = priority
        self.vm = self  # as an owner of requests


class Disk:
    """A guest's disk: what its requests are cancelled by."""

    def __init__(self, vm):
        self.vm = vm


class Scheduler:
    """What a driver uses of the scheduler's."""

    def __init__(self):
        self.later = 0
        self.served = []

    def poll_later(self):
        self.later += 1

    def serve(self, vm, work):
        self.served.append(vm)
        return work()


class Bench:
    def __init__(self, **how):
        self.io = Io(bytearray(chance.Random(3).randbytes(SECTORS * 512)), **how)
        self.before = bytes(self.io.content)
        self.scheduler = Scheduler()
        self.channel = Channel(self.io, self.scheduler, 0x1F0, 0x3F6, 14)
        (self.drive,) = self.channel.probe()
        self.guest = Guest()
        self.keep = []

    def request(self, kind, sector, sizes, data=b"", guest=None, done=None):
        """A request with buffers of these sizes; returns a list that gets ok, and the buffers."""
        buffers = []
        for size in sizes:
            buffers.append(ctypes.create_string_buffer(data[:size], size))
            data = data[size:]
        self.keep.append(buffers)
        words, sectors = words_of([(ctypes.addressof(b), len(b)) for b in buffers])
        answer = []
        request = Request(guest or self.guest, kind, sector, words, sectors, done or answer.append)
        self.drive.submit(request)
        return answer, buffers

    def wait(self, answer):
        for _ in range(100000):
            if answer:
                return answer[0]
            self.channel.look(0)
        raise AssertionError("no answer")


@pytest.fixture(params=[{}, {"seeks": 30}, {"long": False}, {"block": 16, "seeks": 5}])
def b(request):
    return Bench(**request.param)


def test_a_disk_is_found(b):
    assert (b.drive.sectors, b.drive.model, b.drive.serial) == (SECTORS, "model one", "serial")
    assert b.io.lines == {14: 1} and b.io.block == b.drive.block


def test_a_disk_that_was_left_in_the_middle_of_a_command():
    b = Bench()
    b.io.status, b.io.left, b.io.data, b.io.reads = 0x48, 5, bytearray(512), True
    (again,) = Channel(b.io, b.scheduler, 0x1F0, 0x3F6, 14).probe()
    assert again.model == b.drive.model and b.io.left == 0


def test_no_disk():
    class Nothing(Io):
        def look(self):
            return 0xFF

    assert Channel(Nothing(bytearray()), Scheduler(), 0x1F0, 0x3F6, 14).probe() == []


@pytest.mark.parametrize("sizes", [(512,), (4096,) * 5, (1536, 512), (100, 412), (1, 511, 4096, 3, 509), (512 * 300,)])
def test_reads_and_writes(b, sizes):
    size = sum(sizes)
    answer, buffers = b.request(READ, 9, sizes)
    assert b.wait(answer) is True
    assert b"".join(x.raw for x in buffers) == b.before[9 * 512 : 9 * 512 + size]
    new = chance.Random(4).randbytes(size)
    answer, _ = b.request(WRITE, 11, sizes, new)
    assert b.wait(answer) is True
    after = bytearray(b.before)
    after[11 * 512 : 11 * 512 + size] = new
    assert b.io.content == after and b.io.flushed is None
    answer, _ = b.request(FLUSH, 0, ())
    assert b.wait(answer) is True and b.io.flushed == after


def test_the_disk_is_not_waited_for_in_a_loop():
    b = Bench(seeks=100)
    answer, _ = b.request(READ, 0, (512,))
    assert answer == [] and not b.io.quiet and b.scheduler.served == []
    assert b.wait(answer) and set(b.scheduler.served) == {b.guest}


def test_an_error_is_of_its_request_alone(b):
    b.io.failing = {50}
    bad, _ = b.request(WRITE, 48, (4096,), bytes(4096))
    good, _ = b.request(READ, 60, (512,))
    assert b.wait(bad) is False and b.wait(good) is True
    beyond, _ = b.request(READ, SECTORS - 1, (1024,))
    assert b.wait(beyond) is False


def test_the_highest_priority_goes_first():
    b = Bench(seeks=60)
    first, _ = b.request(READ, 0, (512,))
    order = []
    b.request(READ, 1, (512,), done=lambda ok: order.append("low"))
    b.request(READ, 2, (512,), guest=Guest(7), done=lambda ok: order.append("high"))
    assert b.wait(first)
    for _ in range(200):
        b.channel.look(0)
    assert order == ["high", "low"]


def test_in_the_middle_of_a_line_only_those_that_run_there():
    b = Bench(seeks=20)
    answer, _ = b.request(READ, 0, (512,))
    for _ in range(50):
        b.channel.look(1)
    assert answer == [] and b.scheduler.later
    assert b.wait(answer)


def test_a_guest_that_is_gone():
    b = Bench(seeks=60)
    other = Guest()
    under_way, _ = b.request(READ, 0, (512,))
    waiting, _ = b.request(WRITE, 1, (512,), bytes(512))
    others, _ = b.request(READ, 2, (512,), guest=other)
    b.drive.cancel(b.guest)
    assert b.wait(others) and under_way == [] and waiting == [] and b.io.content == b.before


def test_a_disk_that_is_gone_ends_no_request_of_another_of_its_guest():
    """That one may be the next to go, in the middle of load()."""
    b = Bench(seeks=60)
    one, other = Disk(b.guest), Disk(b.guest)
    under_way, _ = b.request(READ, 0, (512,), guest=one)
    others, _ = b.request(FLUSH, 0, (), guest=other)
    b.drive.cancel(one)
    assert under_way == [] and others == [] and b.scheduler.later
    assert b.wait(others)
    kept, _ = b.request(READ, 0, (512,), guest=other)
    b.drive.cancel(one)
    assert b.wait(kept)


def test_when_its_end_fails_the_next_one_is_not_forgotten():
    b = Bench(seeks=60)

    def fails(ok):
        raise MemoryError

    b.request(READ, 0, (512,), done=fails)
    after, _ = b.request(READ, 0, (512,))
    with pytest.raises(MemoryError):
        b.wait([])
    assert b.scheduler.later == 1 and b.wait(after)


@pytest.mark.parametrize("how", ["dead", "empty"])
def test_a_disk_that_does_not_answer(how):
    b = Bench(seeks=5)
    setattr(b.io, how, True)
    answer, _ = b.request(READ, 0, (512,))
    assert b.io.at < b.io.now + 21 * b.io.tsc_hz  # then the driver looks, though nothing interrupts
    b.io.now += 21 * b.io.tsc_hz
    assert b.wait(answer) is False and b.channel.timeouts == 1
    answer, _ = b.request(READ, 0, (512,))
    assert b.wait(answer) is True


def test_addresses_beyond_28_bits():
    b = Bench()
    b.drive.sectors = 1 << 40
    answer, _ = b.request(READ, (1 << 28) + 5, (512,))
    assert b.wait(answer) is False and b.io.commands[-1] == 0x29 and b.io.where(True) == ((1 << 28) + 5, 1)


@pytest.mark.parametrize("seed", range(20))
def test_random_requests(seed):
    random = chance.Random(seed)
    b = Bench(seeks=random.choice((0, 3, 40)), block=random.choice((1, 4, 16)))
    model = bytearray(b.before)
    waiting = []
    for _ in range(40):
        count = random.choice((1, 2, 8, 100, 270))
        sector = random.randrange(SECTORS - count)
        cuts = sorted({0, count * 512, *[random.randrange(count * 512) for _ in range(random.randrange(4))]})
        sizes = [end - start for start, end in zip(cuts, cuts[1:], strict=False)]
        if random.random() < 0.5:
            data = random.randbytes(count * 512)
            model[sector * 512 : (sector + count) * 512] = data
            waiting.append((*b.request(WRITE, sector, sizes, data), None))
        else:
            waiting.append((*b.request(READ, sector, sizes), bytes(model[sector * 512 : (sector + count) * 512])))
    for answer, buffers, expected in waiting:
        assert b.wait(answer) is True
        assert expected is None or b"".join(x.raw for x in buffers) == expected
    assert b.io.content == model
