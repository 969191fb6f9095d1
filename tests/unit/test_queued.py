"""What host disks share that take several commands at once: requests of several owners, cancelling, failures."""

import ctypes
from types import SimpleNamespace

import pytest
import uctypes

from vmm.host import FLUSH, READ, Request, words_of
from vmm.host import queued as module
from vmm.host.queued import Queued


class Scheduler:
    def __init__(self):
        self.later = 0

    def poll_later(self):
        self.later += 1

    def serve(self, vm, work):
        return work()


class Disk(Queued):
    """Ends commands when the test says so."""

    def __init__(self, slots=2):
        self.buffers = []
        self.scheduler = Scheduler()
        Queued.__init__(self, self.scheduler, self.take, slots, 4, 1 << 20, 2, 5)
        self.sent = []  # slots
        self.ended = []  # slot << 1 | ok
        self.interrupted = 0

    def take(self, size):
        self.buffers.append(bytearray(size))
        return uctypes.addressof(self.buffers[-1])

    def _send(self, slot, kind, sector, parts):
        self.sent.append((slot, kind, sector))

    def _caused(self):
        caused, self.interrupted = self.interrupted, 0
        return caused

    def _next(self):
        return self.ended.pop(0) if self.ended else -1

    def end(self, slot, ok=1):
        self.ended.append(slot << 1 | ok)
        self.interrupted = 1


class Bench:
    def __init__(self, monkeypatch):
        self.disk = Disk()
        self.lines = []
        monkeypatch.setattr(module.cpu, "line", lambda number, kind: self.lines.append(number))
        self.vm = SimpleNamespace(priority=0)
        self.data = ctypes.create_string_buffer(4096)

    def owner(self, priority=0):
        return SimpleNamespace(vm=SimpleNamespace(priority=priority))

    def request(self, owner, done=None, kind=READ):
        answer = []
        words, sectors = words_of([(ctypes.addressof(self.data), 512)])
        self.disk.submit(Request(owner, kind, 7, words, sectors, done or answer.append))
        return answer


@pytest.fixture
def b(monkeypatch):
    return Bench(monkeypatch)


def test_requests_end_in_any_order(b):
    one, other = b.request(b.owner()), b.request(b.owner(), kind=FLUSH)
    waits = b.request(b.owner())
    assert [slot for slot, _, _ in b.disk.sent] == [0, 1]
    b.disk.end(1)
    b.disk.look(0)
    assert (one, other, waits) == ([], [True], []) and b.disk.sent[2][0] == 1 and b.lines == [5]
    b.disk.end(1, 0)
    b.disk.end(0)
    b.disk.look(0)
    assert (one, waits) == ([True], [False])


def test_cancelling_ends_no_request_of_another_of_the_same_guest(b):
    """Two disks of a guest may be one of the machine's, and its load() cancels one after the other."""
    vm = SimpleNamespace(priority=0)
    one, other = SimpleNamespace(vm=vm), SimpleNamespace(vm=vm)
    mine, others = b.request(one), b.request(other)
    waits = b.request(one)
    b.disk.end(1)
    b.disk.end(0)
    b.disk.cancel(one)
    assert (mine, others, waits) == ([], [], []) and b.disk.scheduler.later
    b.disk.look(0)
    assert others == [True] and b.lines == [5]  # nobody else would hear of the interrupt
    assert len(b.disk.sent) == 2


def test_what_ends_behind_one_that_fails_is_not_lost(b):
    def fails(ok):
        raise MemoryError

    b.request(b.owner(), fails)
    after = b.request(b.owner())
    b.disk.end(0)
    b.disk.end(1)
    with pytest.raises(MemoryError):
        b.disk.look(0)
    assert b.lines == [5] and b.disk.scheduler.later and after == []
    b.disk.look(0)
    assert after == [True]


def test_those_below_the_floor_wait(b):
    low, high = b.request(b.owner(0)), b.request(b.owner(3))
    b.disk.end(0)
    b.disk.end(1)
    b.disk.look(2)
    assert (low, high) == ([], [True]) and b.disk.scheduler.later
    b.disk.look(0)
    assert low == [True]
