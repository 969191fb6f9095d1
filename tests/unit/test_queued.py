"""What host disks share that take several commands at once: requests of several owners, cancelling, failures, the time
that a command has."""

import ctypes
from types import SimpleNamespace

import pytest
import uctypes

from vmm.host import ANSWER_S, FLUSH, READ, WRITE, Request, words_of
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
        self.resets = 0
        self.broken = False

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

    def _reset(self):
        self.resets += 1
        if self.broken:
            raise ValueError("it does not come out of reset")

    def end(self, slot, ok=1):
        self.ended.append(slot << 1 | ok)
        self.interrupted = 1


class Bench:
    def __init__(self, monkeypatch):
        self.disk = Disk()
        self.lines = []
        monkeypatch.setattr(module.cpu, "line", lambda number, kind: self.lines.append(number))
        self.now, self.looks = 0, []
        monkeypatch.setattr(module.cpu, "rdtsc", lambda: self.now)
        monkeypatch.setattr(module.cpu, "look_at", lambda tsc: self.looks.append(tsc))
        self.wrote = []
        monkeypatch.setattr(module.cpu, "wrote", lambda hpa, size: self.wrote.append((hpa, size)))
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


def test_what_the_device_writes_by_itself_is_told(b):
    """Also where it has failed in the middle, or nobody waits for it any more; by a bounce buffer the CPU does."""
    at, mine = ctypes.addressof(b.data), b.owner()
    b.request(b.owner(), kind=WRITE)
    b.request(b.owner())
    b.disk.end(0)
    b.disk.look(0)
    assert b.wrote == []
    b.disk.end(1, 0)
    b.disk.look(0)
    assert b.wrote == [(at, 512)]
    b.request(mine)
    b.disk.end(0)
    b.disk.cancel(mine)
    assert b.wrote == 2 * [(at, 512)]
    words, sectors = words_of([(at + 1, 512)])
    b.disk.submit(Request(mine, READ, 7, words, sectors, lambda ok: None))
    b.disk.end(0)
    b.disk.look(0)
    assert len(b.wrote) == 2


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


LIMIT = ANSWER_S * module.cpu.tsc_hz


def test_a_command_that_has_had_its_time_fails(b):
    """The disk is reset, and what was sent later is sent again."""
    late = b.request(b.owner())
    b.now = LIMIT // 2
    later = b.request(b.owner(), kind=FLUSH)
    assert b.looks[:2] == [LIMIT, LIMIT + LIMIT // 2]
    b.now = LIMIT - 1
    b.disk.look(0)
    assert (late, later, b.disk.resets) == ([], [], 0) and b.looks[-1] == LIMIT
    b.now = LIMIT
    b.disk.look(0)
    assert (late, later) == ([False], []) and b.disk.resets == b.disk.timeouts == 1
    assert [(slot, kind) for slot, kind, _ in b.disk.sent] == [(0, READ), (1, FLUSH), (1, FLUSH)]
    b.disk.end(1)
    b.disk.look(0)
    assert later == [True]
    again = b.request(b.owner())
    b.disk.end(0)
    b.disk.look(0)
    assert again == [True]


def test_what_has_ended_in_time_is_not_late(b):
    low, other = b.request(b.owner(0)), b.request(b.owner(3))
    b.disk.end(0)
    b.disk.look(2)
    b.disk.end(1)
    b.now = 2 * LIMIT
    b.disk.look(0)
    assert (low, other, b.disk.resets) == ([True], [True], 0)


def test_a_disk_that_cannot_be_reset(b):
    under_way = [b.request(b.owner()) for _ in range(3)]
    b.disk.broken = True
    b.now = LIMIT
    b.disk.look(0)
    assert under_way == [[False]] * 3
    assert b.request(b.owner()) == [False] and b.disk.resets == 1


@pytest.mark.parametrize("way", ["cancel", "finish"])
def test_a_disk_that_does_not_answer_is_not_waited_for_without_end(b, monkeypatch, way):
    def passes():
        b.now += 1000
        return b.now

    monkeypatch.setattr(module.cpu, "rdtsc", passes)
    mine = b.owner()
    answer = b.request(mine)
    getattr(b.disk, way)(mine)
    assert answer == ([] if way == "cancel" else [False]) and b.disk.timeouts == 1


def test_what_is_submitted_in_the_middle_of_a_submission(b):
    """By a guest of a higher priority that interrupts it."""
    send, inner = b.disk._send, []

    def interrupted(*command):
        b.disk._send = send
        inner.append(b.request(b.owner(9)))
        assert b.disk.sent == []
        send(*command)

    b.disk._send = interrupted
    outer = b.request(b.owner())
    assert [slot for slot, _, _ in b.disk.sent] == [0, 1]
    b.disk.end(0)
    b.disk.end(1)
    b.disk.look(0)
    assert (outer, inner) == ([True], [[True]])
