"""HPET against its specification, and the sequences of Linux's driver."""

from random import Random

import pytest
from clock import Clock, Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.hpet import Hpet

CAP, CONF, STATUS, COUNTER = 0, 0x10, 0x20, 0xF0
LEVEL, INT, PERIODIC, SET, BITS32 = 2, 4, 8, 0x40, 0x100
TICKS = 10  # of the clock, 100 MHz, a period of the counter


def timer(n):
    return 0x100 + 0x20 * n


def comparator(n):
    return 0x108 + 0x20 * n


def route(line):
    return line << 9


class Board:
    def __init__(self, late=0):
        self.clock = Clock(100000000, late=late)
        self.lines = {}
        self.legacy = []
        self.served = 1
        self.chip = Hpet(self.clock, self.line, self.legacy.append)

    def line(self, n):
        if n not in self.lines:
            self.lines[n] = Line()
        line = self.lines[n]

        def drive(level):
            line(level)
            return self.served

        return drive

    def get(self, offset, size=4):
        return self.chip.read(offset, size)

    def put(self, offset, value, size=4):
        self.chip.write(offset, size, value)

    def run(self, periods):
        self.clock.advance(periods * TICKS)

    def rises(self, n):
        return self.lines[n].rises if n in self.lines else 0


def test_reset_values():
    b = Board()
    assert b.get(CAP, 8) == 100000000 << 32 | 0x8086A201
    assert (b.get(CAP + 4), b.get(CAP)) == (100000000, 0x8086A201)
    assert [b.get(r, 8) for r in (CONF, STATUS, COUNTER)] == [0, 0, 0]
    for n in range(3):
        assert b.get(timer(n), 8) == 0x00F00000 << 32 | 0x30
        assert b.get(comparator(n), 8) == (1 << 64) - 1
    assert b.get(0x160, 8) == b.get(0x30, 8) == 0
    assert b.clock.timers == []  # nobody pays for what nobody uses


def test_the_counter_runs_while_enabled_and_keeps_its_value():
    b = Board()
    b.run(1000)
    assert b.get(COUNTER, 8) == 0
    b.put(COUNTER, 0x1_FFFF_FF00, 8)
    b.put(CONF, 1)
    b.run(0x200)
    assert b.get(COUNTER, 8) == 0x2_0000_0100
    assert (b.get(COUNTER), b.get(COUNTER + 4)) == (0x100, 2)
    b.put(CONF, 0)
    b.run(5000)
    assert b.get(COUNTER, 8) == 0x2_0000_0100
    b.put(CONF, 1)
    b.run(1)
    assert b.get(COUNTER) == 0x101
    b.put(CONF, 0)
    b.put(COUNTER + 4, 7)
    assert b.get(COUNTER, 8) == 0x7_0000_0101
    b.put(COUNTER, 3)
    assert b.get(COUNTER, 8) == 0x7_0000_0003


def test_a_counter_of_64_bits_wraps():
    b = Board()
    b.put(COUNTER, (1 << 64) - 5, 8)
    b.put(CONF, 1)
    b.run(7)
    assert b.get(COUNTER, 8) == 2


def test_one_shot_edge():
    b = Board()
    b.put(timer(0), INT | route(20))
    b.put(CONF, 1)
    b.put(comparator(0), 500, 8)
    b.run(499)
    assert b.rises(20) == 0
    b.run(1)
    assert b.rises(20) == 1 and b.get(STATUS) == 0
    b.run(1 << 33)
    assert b.rises(20) == 1 and b.get(comparator(0), 8) == 500
    b.put(comparator(0), b.get(COUNTER, 8) + 10, 8)
    b.run(10)
    assert b.rises(20) == 2


def test_one_shot_in_32_bits_comes_again_when_the_counter_wraps():
    b = Board()
    b.put(timer(1), INT | BITS32 | route(21))
    b.put(CONF, 1)
    b.put(comparator(1), 500)
    assert b.get(comparator(1), 8) == 500
    b.run(1000)
    assert b.rises(21) == 1
    b.run((1 << 32) - 1000 + 499)
    assert b.rises(21) == 1
    b.run(1)
    assert b.rises(21) == 2


def test_a_comparator_in_the_past_waits_unless_it_passed_within_a_second():
    b = Board()
    b.put(timer(0), INT | route(20))
    b.put(CONF, 1)
    b.run(20000000)
    b.put(comparator(0), 9000000, 8)
    b.run(1000000)
    assert b.rises(20) == 0
    b.put(comparator(0), b.get(COUNTER, 8) - 9000000, 8)
    b.run(1)
    assert b.rises(20) == 1


def test_periodic_by_the_way_of_linux():
    """hpet_set_periodic: counter + period with VAL_SET, then the period."""
    b = Board()
    b.put(CONF, 1)
    b.run(12345)
    period = 100000000 // 250 // TICKS
    b.put(timer(0), b.get(timer(0)) | INT | PERIODIC | SET | BITS32 | route(22))
    b.put(comparator(0), b.get(COUNTER) + period)
    b.put(comparator(0), period)
    assert b.get(timer(0)) & SET == 0
    for n in range(5):
        b.run(period - 1)
        assert b.rises(22) == n
        b.run(1)
        assert b.rises(22) == n + 1
    assert b.get(comparator(0)) == 12345 + 6 * period


def test_a_periodic_one_across_the_wrap_of_32_bits():
    b = Board()
    b.put(COUNTER, (1 << 32) - 1500, 8)
    b.put(timer(2), INT | PERIODIC | SET | BITS32 | route(23))
    b.put(comparator(2), (1 << 32) - 500)
    b.put(comparator(2), 1000)
    b.put(CONF, 1)
    b.run(1000)
    assert b.rises(23) == 1 and b.get(comparator(2)) == 500
    b.run(10000)
    assert b.rises(23) == 11


@given(st.randoms())
def test_late_timers_lose_no_period(random):
    b = Board(late=random.randrange(0, 60000))
    period = random.randrange(600, 5000)
    b.put(timer(0), INT | PERIODIC | SET | route(20))
    b.put(comparator(0), period, 8)
    b.put(comparator(0), period, 8)
    b.put(CONF, 1)
    total = random.randrange(20000, 200000)
    b.run(total)
    b.clock.late = 0
    b.run(1000000)
    assert b.rises(20) == (total + 1000000) // period


def test_a_period_whose_edge_is_not_taken_is_made_up_for():
    b = Board()
    b.put(timer(0), INT | PERIODIC | SET | route(20))
    b.put(comparator(0), 1000, 8)
    b.put(CONF, 1)
    b.run(1000)
    assert b.rises(20) == 1
    b.served = 0
    b.run(5000)
    before = b.rises(20)
    b.served = 1
    b.run(20000)
    assert b.rises(20) - before == 25  # the 5 that were lost, and 20


def test_level_triggered_asks_until_its_status_is_cleared():
    b = Board()
    b.put(timer(1), INT | LEVEL | route(21))
    b.put(CONF, 1)
    b.put(comparator(1), 100, 8)
    b.run(100)
    assert b.lines[21].level == 1 and b.get(STATUS) == 2
    b.put(STATUS, 5)
    assert b.lines[21].level == 1
    b.put(STATUS, 2)
    assert b.lines[21].level == 0 and b.get(STATUS) == 0
    b.put(comparator(1), b.get(COUNTER, 8) + 50, 8)
    b.run(60)
    assert b.lines[21].level == 1
    b.put(timer(1), LEVEL | route(21))
    assert b.lines[21].level == 0


def test_status_of_one_that_interrupts_nobody_needs_no_timer():
    b = Board()
    b.put(timer(0), LEVEL | PERIODIC | SET)
    b.put(comparator(0), 100, 8)
    b.put(CONF, 1)
    b.run(99)
    assert b.get(STATUS) == 0
    b.run(1001)
    assert b.get(STATUS) == 1 and b.get(comparator(0), 8) == 1200
    assert b.clock.timers == []


def test_legacy_replacement():
    b = Board()
    b.put(timer(0), INT | PERIODIC | SET)  # routed nowhere by itself
    b.put(comparator(0), 1000, 8)
    b.put(timer(1), INT)
    b.put(comparator(1), 2500, 8)
    b.put(timer(2), INT | route(20))
    b.put(comparator(2), 3000, 8)
    b.put(CONF, 1)
    b.run(3500)
    assert (b.rises(0), b.rises(8), b.rises(20)) == (0, 0, 1) and b.legacy == []
    b.put(CONF, 3)
    assert b.legacy == [1]
    b.put(comparator(1), b.get(COUNTER, 8) + 300, 8)
    b.run(1500)
    assert (b.rises(0), b.rises(8), b.rises(20)) == (2, 1, 1)
    b.put(CONF, 1)
    assert b.legacy == [1, 0] and b.lines[0].level == b.lines[8].level == 0
    b.put(CONF, 3)
    b.chip.reset()
    assert b.legacy == [1, 0, 1, 0] and b.get(CONF) == 0
    b.run(1000)
    assert b.rises(0) == 2


def test_a_route_that_is_not_there_is_not_taken():
    b = Board()
    b.put(timer(0), route(21))
    b.put(timer(0), route(5))
    assert b.get(timer(0)) >> 9 & 31 == 21


def test_writable_bits():
    b = Board()
    for n in range(3):
        b.put(timer(n), 0xFFFFFFFF)
        assert b.get(timer(n)) & 0xFFFF == 0x017E & ~0 | b.get(timer(n)) & 0x3E00
    b.put(CONF, 0xFFFFFFFC)
    b.put(CAP, 0xFFFFFFFF)
    assert b.get(CONF) == 0 and b.get(CAP) == 0x8086A201
    b.put(CONF, 1, 1)  # narrower than the specification allows
    assert b.get(CONF) == 0


def test_halting_and_going_on_keeps_a_match_ahead():
    b = Board()
    b.put(timer(0), INT | route(20))
    b.put(CONF, 1)
    b.put(comparator(0), 1000, 8)
    b.run(400)
    b.put(CONF, 0)
    b.run(5000)
    assert b.rises(20) == 0
    b.put(CONF, 1)
    b.run(599)
    assert b.rises(20) == 0
    b.run(1)
    assert b.rises(20) == 1


def test_tiny_periods_cost_no_more_than_the_limit():
    b = Board()
    b.put(timer(0), INT | PERIODIC | SET | route(20))
    b.put(comparator(0), 1, 8)
    b.put(CONF, 1)
    b.run(1000000)  # 0.1 s
    assert b.clock.fired <= 2001


@pytest.mark.parametrize("seed", range(60))
def test_the_fast_ways_are_the_plain_ones(seed):
    """read() and write() in viper, against the registers in plain Python."""
    random = Random(seed)
    fast, plain = Board(), Board()
    registers = [CAP, CONF, STATUS, COUNTER, *[at(n) for at in (timer, comparator) for n in range(3)]]
    values = [0, 1, 500, 20000, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 61, (1 << 64) - 1]
    for _ in range(60):
        register, size = random.choice(registers), random.choice((4, 8))
        value = random.choice((*values, fast.get(COUNTER, 8) + random.randrange(-3000, 3000)))
        if register in (timer(0), timer(1), timer(2)):
            value = random.choice((0, BITS32, PERIODIC, PERIODIC | SET, LEVEL, INT | LEVEL, INT | PERIODIC)) | route(20)
        value &= (1 << 8 * size) - 1
        fast.chip.write(register, size, value)
        plain.chip._write(register, size, value)
        periods = random.randrange(0, 3000)
        for board in (fast, plain):
            board.run(periods)
        states = [{key: value for key, value in board.chip.save().items() if key != "timer"} for board in (fast, plain)]
        assert states[0] == states[1]
        register, size = random.choice(registers), random.choice((4, 8))
        assert fast.get(register, size) & (1 << 8 * size) - 1 == plain.chip._read(register, size)
