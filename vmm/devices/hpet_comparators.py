"""The comparators of the HPET: when each matches next, its interrupt line, and the timer that they share.

hpet.py has the registers around them. A comparator whose interrupt is disabled has no timer: its matches are computed
when a register is read.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.oscillator import CALLBACKS_HZ, periods, ticks_at
from vmm.vtx.x86 import MASK32, MASK64

FREQUENCY = const(10000000)
ROUTES = const(0x00F00000)  # interrupt lines 20 to 23

# Configuration of the chip
ENABLE = const(1)
LEGACY = const(2)

# Configuration of a comparator
LEVEL = const(1 << 1)
INTERRUPTS = const(1 << 2)
PERIODIC = const(1 << 3)
ONLY_32_BITS = const(1 << 8)

COUNT = const(3)
NEVER = const(-1)
JUST = const(FREQUENCY)  # periods: a comparator written at most this far behind the counter matches at once
_MADE_UP = const(FREQUENCY)  # periods of lost matches that are made up for

# Words of `_plain`, 64 bits each: for `_tick`, where one periodic comparator is the only one enabled.
_PERIOD = const(0)  # 0: Comparators._due handles the timer
_MATCH = const(1)  # address of its match
_BASE = const(2)
_HZ = const(3)
PLAIN_BITS = const(60)
_PLAIN_MAX = const(1 << PLAIN_BITS)
NEVER_REACHED = const(1 << 61)  # later than any match

# Words of `_rate`.
_CLOCK_HZ = const(0)  # two, as `base`
RATE_BASE = const(2)
_ENABLED = const(4)
RATE_WIDE = const(5)  # `base` has more than 60 bits, and count_of() cannot be used


class Comparators:
    """The counter, and `match`, `config`, `comparator` and `period` of each comparator. Hpet adds the registers.

    line(n) gives a new source on interrupt line n (Gsi.line).
    """

    def __init__(self, clock, line):
        self.clock = clock
        self.timer = None
        self._line = line
        self._lines = [None] * COUNT  # (number, callable) of what each comparator drives
        self._levels = 0  # a bit for each line that is high
        self._plain = array("q", [0] * 4)
        self._driven = [None]  # the callable of that comparator's line
        self.match = array("q", [NEVER] * COUNT)  # the counter at the next match
        self.config = array("I", [0] * COUNT)
        self.conf = 0
        self._now = clock.now
        self._rate = array("I", [clock.hz & MASK32, clock.hz >> 32, 0, 0, 0, 0])

    def _rebase(self, base):
        """Set `base`: the counter while it is halted, else the counter minus the periods of the clock."""
        self.base = base
        rate = self._rate
        rate[RATE_BASE] = base & MASK32
        rate[RATE_BASE + 1] = base >> 32 & MASK32
        rate[_ENABLED] = self.conf & ENABLE
        rate[RATE_WIDE] = 0 if -_PLAIN_MAX < base < _PLAIN_MAX else 1

    def counter(self):
        """The main counter, unlimited."""
        if not self._rate[RATE_WIDE]:
            return count_of(self._rate, self._now)
        if self.conf & ENABLE:
            return periods(self._now(), self.clock.hz, FREQUENCY) + self.base
        return self.base

    def _begin(self, n, just, now=None):
        """Compute comparator n's next match from its value; one at most `just` periods past matches now.

        now: the counter, where the caller knows it.
        """
        if not self.conf & ENABLE:
            self.match[n] = NEVER
            return
        if now is None:
            now = self.counter()
        if self.comparator[n] >= _PLAIN_MAX and now < _PLAIN_MAX:
            self.match[n] = NEVER  # 3,000 years ahead
            return
        ahead = self.comparator[n] - now
        if self.config[n] & ONLY_32_BITS:
            ahead &= MASK32
            if ahead > MASK32 - just:
                ahead = 0
        if ahead < 0:
            period = self.period[n] if self.config[n] & PERIODIC else 0
            if period:
                ahead += (-ahead + period - 1) // period * period
            elif ahead >= -just:
                ahead = 0
            else:
                self.match[n] = NEVER
                return
        self.match[n] = now + ahead if now + ahead < _PLAIN_MAX else NEVER

    def _restart(self):
        """The counter has been started, halted or written."""
        now = self.counter()
        for n in range(COUNT):
            if self.config[n] & PERIODIC and self.match[n] != NEVER:
                self.comparator[n] = self.match[n] & (MASK32 if self.config[n] & ONLY_32_BITS else MASK64)
            self._begin(n, 0, now)
        self._arm()

    def _advance(self, n, count):
        """Move comparator n to the match after the current one."""
        match = self.match[n]
        step = 0
        if self.config[n] & PERIODIC:
            step = self.period[n]
        elif self.config[n] & ONLY_32_BITS:
            step = MASK32 + 1
        if not step:
            self.match[n] = NEVER
            return
        if count - match > _MADE_UP:
            match += (count - match) // step * step
        match += step
        self.match[n] = match if match < _PLAIN_MAX else NEVER

    def _look(self):
        """Catch up with the matches of comparators whose interrupt is disabled."""
        if not any_match(self.match, self.config, 0, NEVER_REACHED):
            return
        count = self.counter()
        for n in range(COUNT):
            if self.match[n] == NEVER or self.match[n] > count or self.config[n] & INTERRUPTS:
                continue
            if self.config[n] & LEVEL:
                self.status |= 1 << n
            step = self.period[n] if self.config[n] & PERIODIC else 0
            if step:
                self.match[n] += (count - self.match[n]) // step * step
            self._advance(n, count)

    def _due(self, now):
        """The timer."""
        count = self.counter()
        retry = 0
        for n in range(COUNT):
            match = self.match[n]
            if match == NEVER or match > count or not self.config[n] & INTERRUPTS:
                continue
            if self.config[n] & LEVEL:
                self.status |= 1 << n
                self._set(n, 1)
            else:
                self._set(n, 0)
                if self._set(n, 1) == 0 and self.config[n] & PERIODIC:
                    retry = max(self.period[n] // 4, 1)
                    continue
            self._advance(n, count)
        soonest = now + self.clock.hz // CALLBACKS_HZ
        if retry:
            soonest = max(soonest, now + ticks_at(retry, self.clock.hz, FREQUENCY))
        self._arm(soonest)

    def _arm(self, soonest=0):
        """Arm the clock's timer for the earliest enabled match; periodic ones not before `soonest`."""
        first = 0
        plain = NEVER  # the only comparator enabled; COUNT: there are several
        self._plain[_PERIOD] = 0
        if self.conf & ENABLE and any_match(self.match, self.config, INTERRUPTS, NEVER_REACHED):
            for n in range(COUNT):
                match = self.match[n]
                if match == NEVER or not self.config[n] & INTERRUPTS or match - self.base >> 48:  # beyond a year
                    continue
                plain = COUNT if first else n
                when = ticks_at(match - self.base, self.clock.hz, FREQUENCY)
                if self.config[n] & PERIODIC:
                    when = max(when, soonest)
                if not first or when < first:
                    first = max(when, 1)
        if first:
            if self.timer is None:
                self.timer = self.clock.timer(self._due)
                self.timer.callback = bind(
                    _tick, uctypes.addressof(self._plain), self._driven, self.timer.arm, self._due
                )
            if plain < COUNT:
                self._simplify(plain)
            self.timer.arm(first)
        elif self.timer:
            self.timer.cancel()

    def _simplify(self, n):
        """Comparator n is the only one enabled: let `_tick` serve it if it is periodic and edge-triggered."""
        kind = self.config[n] & (LEVEL | PERIODIC)
        if kind != PERIODIC or not self._levels >> n & 1 or not 0 < self.period[n] < _PLAIN_MAX:
            return
        if -_PLAIN_MAX < self.base < _PLAIN_MAX:
            self._driven[0] = self._lines[n][1]
            self._plain[_MATCH] = uctypes.addressof(self.match) + 8 * n
            self._plain[_BASE] = self.base
            self._plain[_HZ] = self.clock.hz
            self._plain[_PERIOD] = self.period[n]

    # -- lines

    def _drive(self):
        """Level-triggered comparators hold their line up while their status bit is set."""
        for n in range(COUNT):
            if self.config[n] & LEVEL:
                self._set(n, self.status >> n & 1 if self.config[n] & INTERRUPTS else 0)

    def _set(self, n, level):
        """Set the line that comparator n drives; returns 0 if the edge before has not been served yet, else 1."""
        if self._levels >> n & 1 == level:
            return 1
        self._levels ^= 1 << n
        if level == 0:
            return self._lines[n][1](0)
        number = self.config[n] >> 9 & 31
        if self.conf & LEGACY and n < 2:
            number = 8 * n
        elif not ROUTES >> number & 1:
            self._levels ^= 1 << n
            return 1
        if self._lines[n] is None or self._lines[n][0] != number:
            self._lines[n] = number, self._line(number)
        return self._lines[n][1](1)


@micropython.viper
def count_of(rate: ptr32, now) -> int:
    """The main counter. rate: `_rate`, with RATE_WIDE clear. now: the clock's `now`."""
    high = int(rate[RATE_BASE + 1])
    if high >> 31:
        high -= 1 << 32
    base = high << 32 | int(rate[RATE_BASE])
    if rate[_ENABLED] == 0:
        return base
    ticks = int(now())
    hz = int(rate[_CLOCK_HZ]) | int(rate[_CLOCK_HZ + 1]) << 32
    seconds = ticks // hz
    return seconds * FREQUENCY + (ticks - seconds * hz) * FREQUENCY // hz + base


@micropython.viper
def any_match(match: ptr32, config: ptr32, interrupts: int, until: int) -> int:
    """Whether a comparator matches before the counter has passed `until`; interrupts: INTERRUPTS for those with their
    interrupt enabled, 0 for the others."""
    n = 0
    while n < COUNT:
        if int(match[2 * n + 1]) >> 31 == 0 and int(config[n]) & INTERRUPTS == interrupts:
            if int(match[2 * n]) | int(match[2 * n + 1]) << 32 <= until:
                return 1
        n += 1
    return 0


# The fast path of `Comparators._due`, for an operating system's tick.
@micropython.viper
def _tick(plain: int, driven, arm, slow, now: int):
    """The timer's callback; slow(now) has all other cases. plain: address of the words of `_plain`."""
    p = ptr32(plain)
    period = int(p[2 * _PERIOD]) | int(p[2 * _PERIOD + 1]) << 32
    if period == 0:
        slow(now)
        return
    m = ptr32(int(p[2 * _MATCH]) | int(p[2 * _MATCH + 1]) << 32)
    at = int(m[0]) | int(m[1]) << 32
    base = int(p[2 * _BASE]) | int(p[2 * _BASE + 1]) << 32
    hz = int(p[2 * _HZ]) | int(p[2 * _HZ + 1]) << 32
    seconds = now // hz
    count = seconds * FREQUENCY + (now - seconds * hz) * FREQUENCY // hz + base
    if count < at or count - at > _MADE_UP:
        slow(now)
        return
    line = driven[0]
    line(0)
    soonest = now + hz // CALLBACKS_HZ
    if int(line(1)) == 0:
        when = now + (period >> 2) * hz // FREQUENCY
    else:
        at += period
        m[0] = at
        m[1] = at >> 32
        at -= base
        seconds = at // FREQUENCY
        when = seconds * hz + ((at - seconds * FREQUENCY) * hz + (FREQUENCY - 1)) // FREQUENCY
    if when < soonest:
        when = soonest
    arm(when)
