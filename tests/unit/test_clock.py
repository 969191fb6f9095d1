"""A guest's clock: deadlines, callbacks, and the word in the frame."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.clock import Clock
from vmm.frame import DEADLINE

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
    return host, clock, lambda: struct.unpack_from("<Q", frame, 4 * DEADLINE)[0]


def test_time_starts_at_zero():
    host, clock, _ = make()
    assert clock.now() == 0
    host.tsc += 7
    assert clock.now() == 7


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 100)), max_size=30))
def test_the_frame_holds_the_earliest_deadline(steps):
    _, clock, word = make()
    timers = [clock.timer(lambda now: None) for _ in range(6)]
    deadlines = {}
    for index, deadline in steps:
        timers[index].arm(deadline) if deadline else timers[index].cancel()
        deadlines[index] = deadline
        first = min([d for d in deadlines.values() if d], default=0)
        assert clock.next == first
        assert word() == (first + START if first else 0)
        assert timers[index].deadline == deadline


def test_the_end_of_the_slice_counts_where_it_is_earlier():
    _, clock, word = make()
    timer = clock.timer(lambda now: None)
    timer.arm(500)
    clock.slice_end = START + 100
    clock.program()
    assert word() == START + 100
    clock.slice_end = START + 900
    clock.program()
    assert word() == START + 500


def test_due_timers_are_called_once_and_may_arm_again():
    host, clock, word = make()
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
    assert word() == START + 22
    host.tsc += 40
    clock.expire()
    assert calls == [12, 52, "other"] and other.deadline == 0


def test_more_timers_than_there_is_room_for_are_refused():
    _, clock, _ = make()
    with pytest.raises(IndexError):
        for _ in range(17):
            clock.timer(lambda now: None)
