"""A guest's clock: deadlines, callbacks, and the words in the frame."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.scheduling.clock import Clock
from vmm.vtx.frame import CLOCK_OFFSET, DIRTY, SLICE_END, TIMERS, TSC_OFFSET

START = 5_000_000


class Host:
    tsc = START

    def rdtsc(self):
        return self.tsc


def make():
    host = Host()
    clock = Clock(1000, host.rdtsc)
    frame = bytearray(4096)
    clock.attach(frame)
    return host, clock, lambda index: struct.unpack_from("<q", frame, 4 * index)[0]


def test_time_starts_at_zero():
    host, clock, _ = make()
    assert clock.now() == 0
    host.tsc += 7
    assert clock.now() == 7


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30))
def test_the_frame_holds_the_deadlines(steps):
    _, clock, word = make()
    timers = [clock.timer(lambda now: None) for _ in range(6)]
    deadlines = {}
    for index, deadline in steps:
        timers[index].arm(deadline) if deadline else timers[index].cancel()
        deadlines[index] = deadline
        first = min([d for d in deadlines.values() if d], default=0)
        assert clock.next == first
        assert word(TIMERS + 2 * index) == timers[index].deadline == deadline
        assert word(DIRTY) & 1 << 5


def test_the_shim_is_told_the_end_of_the_slice_and_the_offsets():
    _, clock, word = make()
    clock.slice_end = START + 100
    assert word(SLICE_END) == clock.slice_end == START + 100
    assert word(CLOCK_OFFSET) == word(TSC_OFFSET) == -START
    clock.skew = -30
    assert clock.skew == -30 and word(TSC_OFFSET) == -START - 30
    clock.skew += 50
    assert clock.skew == 20 and word(DIRTY) & 1 << 4


def test_timers_made_before_the_frame_is_there_move_into_it():
    clock = Clock(1000, Host().rdtsc)
    timer = clock.timer(lambda now: None)
    timer.arm(77)
    frame = bytearray(4096)
    clock.attach(frame)
    assert struct.unpack_from("<Q", frame, 4 * TIMERS)[0] == timer.deadline == clock.next == 77


def test_due_timers_are_called_once_and_may_arm_again():
    host, clock, _ = make()
    calls = []

    def tick(now):
        calls.append(now)
        timer.arm(now + 10)

    timer = clock.timer(tick)
    other = clock.timer(lambda now: calls.append("other"))
    timer.arm(10)
    other.arm(50)
    host.tsc += 9
    clock.expire()
    assert calls == []
    host.tsc += 3
    clock.expire()
    assert calls == [12]
    assert clock.next == 22
    host.tsc += 40
    clock.expire()
    assert calls == [12, 52, "other"] and other.deadline == 0


def test_more_timers_than_there_is_room_for_are_refused():
    _, clock, _ = make()
    with pytest.raises(IndexError):
        for _ in range(17):
            clock.timer(lambda now: None)
