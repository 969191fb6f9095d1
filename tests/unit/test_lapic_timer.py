"""The local APIC's timer: one-shot, periodic, TSC-deadline; lost, masked and late periods."""

import pytest
from lapics import Bench

from vmm.devices import lapic_registers as apic


def test_one_shot_and_divisors():
    for divide, factor in ((0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (10, 128), (11, 1)):
        b = Bench()
        b.put(apic.TIMER_DIVIDE, divide)
        b.put(apic.LVT_TIMER, 0x40)
        b.put(apic.TIMER_INITIAL, 1000)
        assert b.get(apic.TIMER_CURRENT) == 1000
        b.clock.advance(400 * factor)
        assert b.get(apic.TIMER_CURRENT) == 600
        b.clock.advance(599 * factor)
        assert b.get(apic.TIMER_CURRENT) == 1 and b.apic.highest() == -1
        b.clock.advance(factor)
        assert b.get(apic.TIMER_CURRENT) == 0 and b.take() == 0x40
        b.clock.advance(5000 * factor)
        assert b.apic.highest() == -1


def test_periodic_makes_up_for_lost_periods():
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, 0x20040)
    b.put(apic.TIMER_INITIAL, 100000)
    b.clock.ticks += 1000000  # nobody looked for ten periods
    taken = 0
    for _ in range(2000):
        b.clock.advance(1000)
        if b.take() == 0x40:
            taken += 1
            b.apic.eoi()
    assert taken == 30
    assert 0 < b.get(apic.TIMER_CURRENT) <= 100000
    b.put(apic.TIMER_INITIAL, 0)
    b.clock.advance(1000000)
    assert b.apic.highest() == -1 and b.get(apic.TIMER_CURRENT) == 0


def test_fast_periods_do_not_flood():
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, 0x20040)
    b.put(apic.TIMER_INITIAL, 1)
    b.clock.advance(1000000)
    assert b.clock.fired <= 201


def test_a_masked_period_needs_no_timer():
    """The count goes on, its phase stays, and what ended meanwhile is not made up for."""
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, 0x30040)
    b.put(apic.TIMER_INITIAL, 10000)
    b.clock.advance(1_004_000)
    assert b.clock.fired == 0 and b.get(apic.TIMER_CURRENT) == 6000
    b.put(apic.LVT_TIMER, 0x20040)
    b.clock.advance(5999)
    assert b.apic.highest() == -1
    b.clock.advance(1)
    assert b.take() == 0x40
    b.apic.eoi()
    b.put(apic.LVT_TIMER, 0x30040)  # in the middle of a count
    fired = b.clock.fired
    b.clock.advance(1_000_000)
    assert b.clock.fired <= fired + 1 and b.apic.highest() == -1
    b.put(apic.LVT_TIMER, 0x00040)  # one-shot: the count under way is the last
    b.clock.advance(1_000_000)
    assert b.take() == 0x40 and b.get(apic.TIMER_CURRENT) == 0
    b.apic.eoi()
    b.clock.advance(1_000_000)
    assert b.apic.highest() == -1


@pytest.mark.parametrize("lvt", [0x20040, 0x20005], ids=["not accepted", "illegal vector"])
def test_a_period_that_is_not_taken_is_looked_for_less_and_less_often(lvt):
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, lvt)
    b.put(apic.TIMER_INITIAL, 1000)
    assert not b.apic.timer.timer.still_pending()
    b.clock.advance(10_000_000)
    assert b.clock.fired < 120  # once each ms in the end
    assert b.apic.timer.timer.still_pending()
    if lvt == 0x20040:
        assert b.take() == 0x40
        b.apic.eoi()
        b.clock.advance(200_000)
        assert b.take() == 0x40
    else:
        b.put(apic.LVT_TIMER, 0x20040)
        b.clock.advance(200_000)
        assert b.take() == 0x40


def test_tsc_deadline():
    b = Bench()
    b.apic.set_deadline(5000, 0)
    b.clock.until(6000)
    assert b.apic.highest() == -1 and b.apic.deadline_low() == 0
    b.put(apic.LVT_TIMER, 0x40040)
    b.put(apic.TIMER_INITIAL, 5)
    b.apic.set_deadline(9000, 0)
    assert b.apic.deadline_low() == 9000 and b.get(apic.TIMER_CURRENT) == 0
    b.clock.until(8999)
    assert b.apic.highest() == -1
    b.clock.until(9000)
    assert b.take() == 0x40 and b.apic.deadline_low() == 0
    b.apic.eoi()
    b.apic.set_deadline(0xFFFFFFFF, 0xFFFFFFFF)
    assert b.apic.deadline_high() == 0xFFFFFFFF
    b.apic.set_deadline(0, 0)
    assert b.clock.next_timer() is None
    b.apic.set_deadline(0x10, 5)
    assert b.clock.next_timer().deadline == 5 << 32 | 0x10
    b.put(apic.LVT_TIMER, 0x40)
    assert b.clock.next_timer() is None and b.apic.deadline_high() == 0


def test_periods_are_made_up_for_while_interrupts_are_off():
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, 0x20040)
    b.put(apic.TIMER_INITIAL, 100000)
    b.clock.advance(2000000)
    taken = 0
    for _ in range(8000):
        if b.serve() == 0x40:
            taken += 1
        b.clock.advance(1000)
    assert 99 <= taken <= 101


def test_a_deadline_keeps_to_the_tsc():
    """What was written reads back; where the TSC jumps, the deadline is as far away as it says."""
    b = Bench(ticks=1000)
    b.clock.skew = -400
    b.put(apic.LVT_TIMER, 0x40040)
    b.apic.set_deadline(5000, 0)
    assert b.clock.next_timer().deadline == 5400
    b.clock.skew = 600
    b.apic.timer.follow_tsc()
    assert b.clock.next_timer().deadline == 4400 and b.apic.deadline_low() == 5000
    b.clock.skew = 1 << 40
    b.apic.timer.follow_tsc()
    assert b.clock.next_timer().deadline == 1
    b.clock.advance(1)
    assert b.take() == 0x40 and b.apic.deadline_low() == 0


def test_deadlines_are_unsigned():
    """The TSC and a deadline on either side of 2**63."""
    b = Bench(ticks=1000)
    b.put(apic.LVT_TIMER, 0x40040)
    b.apic.set_deadline(0, 0x80000000)
    assert b.clock.next_timer().deadline == (1 << 62) - 1
    b.clock.skew = -(1 << 63) + 500  # the TSC is 2**63 + 1500
    b.apic.timer.follow_tsc()
    assert b.clock.next_timer().deadline == 1
    b.apic.set_deadline(2000, 0x80000000)
    assert b.clock.next_timer().deadline == 1500
    b.apic.set_deadline(2000, 0)
    assert b.clock.next_timer().deadline == 1


def test_a_jump_of_the_tsc_leaves_other_timers_alone():
    b = Bench()
    b.put(apic.TIMER_DIVIDE, 11)
    b.put(apic.LVT_TIMER, 0x20040)
    b.put(apic.TIMER_INITIAL, 500)
    before = b.clock.next_timer().deadline
    b.clock.skew = 12345
    b.apic.timer.follow_tsc()
    assert b.clock.next_timer().deadline == before
