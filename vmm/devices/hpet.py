"""High-precision event timers: a 64-bit main counter of 10 MHz and three comparators, each one-shot or periodic, edge-
or level-triggered (IA-PC HPET specification 1.0a).

Nothing counts: the counter is computed from the clock, and so are the matches of a comparator whose interrupt is
disabled. The clock's timer exists from the first enabled comparator on. Lost edges of a periodic comparator are made up
for one by one, each as soon as the interrupt controller has taken the one before. A comparator that is written with a
value less than a second behind the counter matches at once: the guest may have been descheduled between reading the
counter and writing. Limits: no FSB (message) delivery.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.oscillator import CALLBACKS_HZ, periods, ticks_at

FREQUENCY = const(10000000)
PERIOD_FS = const(100000000)
SIZE = const(0x400)
ID = const(0x8086A201)  # Intel's, legacy replacement, 64-bit counter, three comparators, revision 1
ROUTES = const(0x00F00000)  # interrupt lines 20 to 23

# Registers; the comparators' are 20h apart.
_CAP = const(0x000)
_CONF = const(0x010)
_STATUS = const(0x020)
_COUNTER = const(0x0F0)
_TIMERS = const(0x100)
_TIMERS_END = const(0x160)
_TIMER_CONF = const(0x00)
_COMPARATOR = const(0x08)

_ENABLE = const(1)
_LEGACY = const(2)

# Configuration of a comparator
_LEVEL = const(1 << 1)
_INTERRUPTS = const(1 << 2)
_PERIODIC = const(1 << 3)
_CAPABLE = const(1 << 4 | 1 << 5)  # periodic, 64 bits
_SET = const(1 << 6)
_32BIT = const(1 << 8)
_ROUTE = const(0x3E00)
_WRITABLE = const(0x3F4E)

_COUNT = const(3)
_LOW = const(0xFFFFFFFF)
_ALL = const((1 << 64) - 1)
_NEVER = const(-1)
_JUST = const(FREQUENCY)  # periods: a comparator written at most this far behind the counter matches at once
_MADE_UP = const(FREQUENCY)  # periods of lost matches that are made up for

# Words of `_plain`, 64 bits each: what `_tick` needs where one periodic comparator is the only one enabled.
_PERIOD = const(0)  # 0: Hpet._due serves it
_MATCH = const(1)  # address of its match
_BASE = const(2)
_HZ = const(3)
_PLAIN_MAX = const(1 << 60)


class Hpet:
    """Registers at their offsets.

    line(n) gives a new source on interrupt line n (Gsi.line). legacy(on) is called when the guest lets
    comparators 0 and 1 replace the 8254 on line 0 and the MC146818 on line 8, and when it ends that.
    """

    def __init__(self, clock, line, legacy):
        self.clock = clock
        self._now = clock.now
        self.timer = None
        self._line = line
        self._legacy = legacy
        self._lines = [None] * _COUNT  # (number, callable) of what each comparator drives
        self._levels = 0  # a bit for each line that is high
        self._plain = array("q", [0] * 4)
        self._driven = [None]  # the callable of that comparator's line
        self.match = array("q", [_NEVER] * _COUNT)  # the counter at the next match
        self.conf = 0
        self._rate = array("I", [clock.hz & _LOW, clock.hz >> 32, 0, 0])  # clock's hz, two words; base; enabled
        self.reset()

    def reset(self):
        """The counter 0 and halted, all comparators all ones and disabled."""
        if self.conf & _LEGACY:
            self._legacy(0)
        for n in range(_COUNT):
            self._set(n, 0)
        self._lines = [None] * _COUNT
        self.conf = self.status = 0
        self._rebase(0)
        self.config = [0] * _COUNT
        self.comparator = [_ALL] * _COUNT  # as written; of a periodic one the value last set by _SET
        self.period = [0] * _COUNT
        for n in range(_COUNT):
            self.match[n] = _NEVER
        self._arm()

    def _rebase(self, base):
        """Set `base`: the counter while it is halted, else the counter minus the periods of the clock."""
        self.base = base
        self._rate[2] = base & _LOW
        self._rate[3] = self.conf & _ENABLE

    def counter(self):
        """The main counter, unlimited."""
        if self.conf & _ENABLE:
            return periods(self.clock.now(), self.clock.hz, FREQUENCY) + self.base
        return self.base

    # In bytecode a read of the counter takes 4,000 ticks: Linux calibrates its TSC by it and takes that for an SMI.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """`size` bytes of the register at `offset`."""
        if offset != _COUNTER or size != 4:
            return int(self._read(offset, size))
        rate = ptr32(self._rate)
        if rate[3] == 0:
            return int(rate[2])
        now = int(self._now())
        hz = int(rate[0]) | int(rate[1]) << 32
        seconds = now // hz
        return (seconds * FREQUENCY + (now - seconds * hz) * FREQUENCY // hz + int(rate[2])) & _LOW

    def _read(self, offset, size):
        if offset + size > (offset | 7) + 1:  # across two registers
            return 0
        return self._register(offset & ~7) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def _register(self, at):
        if at == _COUNTER:
            return self.counter() & _ALL
        if at == _CAP:
            return PERIOD_FS << 32 | ID
        if at == _CONF:
            return self.conf
        if at == _STATUS:
            self._look()
            return self.status
        n = at - _TIMERS >> 5
        if 0 <= n < _COUNT:
            at &= 0x1F
            if at == _TIMER_CONF:
                return ROUTES << 32 | self.config[n] | _CAPABLE
            if at == _COMPARATOR:
                return self._compared(n)
        return 0

    def write(self, offset, size, value):
        """Write the register at `offset`, or half of it; narrower writes are undefined and ignored."""
        at = offset & ~7
        if size < 4 or offset & 3 or offset + size > at + 8:
            return
        if at == _CONF:
            if offset == at:
                self._configure(value & (_ENABLE | _LEGACY))
        elif at == _STATUS:
            if offset == at:
                self._look()
                self.status &= ~value
                self._drive()
        elif at == _COUNTER:
            count = self._merged(self.counter() & _ALL, offset, size, value)
            self._rebase(self.base + count - self.counter())
            self._restart()
        elif _TIMERS <= at < _TIMERS_END:
            n = at - _TIMERS >> 5
            at &= 0x1F
            if at == _TIMER_CONF and offset & 7 == 0:
                self._configure_timer(n, value & _WRITABLE)
            elif at == _COMPARATOR:
                self._compare(n, offset, size, value)

    @staticmethod
    def _merged(old, offset, size, value):
        """A register of 64 bits after a write of all of it, or of a half."""
        if size == 8:
            return value
        if offset & 4:
            return old & _LOW | (value & _LOW) << 32
        return old & ~_LOW | value & _LOW

    def _configure(self, value):
        changed = self.conf ^ value
        self._look()
        if changed & _ENABLE:
            count = self.counter() & _ALL
            self.conf ^= _ENABLE
            self._rebase(self.base + count - self.counter())
        if changed & _LEGACY:
            for n in range(_COUNT):
                self._set(n, 0)
            self.conf ^= _LEGACY
            self._legacy(value >> 1 & 1)
        if changed & _ENABLE:
            self._restart()
        else:
            self._arm()

    def _configure_timer(self, n, value):
        old = self.config[n]
        self._look()
        if not ROUTES >> (value >> 9 & 31) & 1:
            value = value & ~_ROUTE | old & _ROUTE
        if (old ^ value) & (_ROUTE | _LEVEL | _INTERRUPTS):
            self._set(n, 0)
        if not value & _LEVEL:
            self.status &= ~(1 << n)
        self.config[n] = value
        if value & _32BIT:
            self.comparator[n] &= _LOW
            self.period[n] &= _LOW
        if (old ^ value) & (_PERIODIC | _32BIT):
            self._begin(n, 0)
        self._drive()
        self._arm()

    def _compare(self, n, offset, size, value):
        """Write a comparator. In periodic mode the value is the period, and, after _SET, the next match too."""
        config = self.config[n]
        if config & _32BIT:
            if offset & 4:
                return
            size, value = 8, value & _LOW
        self._look()
        if config & _PERIODIC:
            self.period[n] = self._merged(self.period[n], offset, size, value)
            if not config & _SET:
                if self.match[n] == _NEVER:
                    self._begin(n, 0)
                self._arm()
                return
            self.config[n] = config & ~_SET
        self.comparator[n] = self._merged(self.comparator[n], offset, size, value)
        self._begin(n, _JUST)
        self._arm()

    def _compared(self, n):
        """The comparator as it is read: in periodic mode the next match."""
        self._look()
        if self.config[n] & _PERIODIC and self.match[n] != _NEVER:
            return self.match[n] & (_LOW if self.config[n] & _32BIT else _ALL)
        return self.comparator[n]

    # -- matches

    def _begin(self, n, just):
        """Compute comparator n's next match from its value; one at most `just` periods past matches now."""
        if not self.conf & _ENABLE:
            self.match[n] = _NEVER
            return
        now = self.counter()
        ahead = self.comparator[n] - now
        if self.config[n] & _32BIT:
            ahead &= _LOW
            if ahead > _LOW - just:
                ahead = 0
        if ahead < 0:
            period = self.period[n] if self.config[n] & _PERIODIC else 0
            if period:
                ahead += (-ahead + period - 1) // period * period
            elif ahead >= -just:
                ahead = 0
            else:
                self.match[n] = _NEVER
                return
        self.match[n] = now + ahead if now + ahead < _PLAIN_MAX else _NEVER  # else in 3,000 years

    def _restart(self):
        """The counter has been started, halted or written."""
        for n in range(_COUNT):
            if self.config[n] & _PERIODIC and self.match[n] != _NEVER:
                self.comparator[n] = self.match[n] & (_LOW if self.config[n] & _32BIT else _ALL)
            self._begin(n, 0)
        self._arm()

    def _advance(self, n, count):
        """Move comparator n to the match after the current one."""
        match = self.match[n]
        step = 0
        if self.config[n] & _PERIODIC:
            step = self.period[n]
        elif self.config[n] & _32BIT:
            step = _LOW + 1
        if not step:
            self.match[n] = _NEVER
            return
        if count - match > _MADE_UP:
            match += (count - match) // step * step
        self.match[n] = match + step

    def _look(self):
        """Catch up with the matches of comparators whose interrupt is disabled."""
        count = self.counter()
        for n in range(_COUNT):
            if self.match[n] == _NEVER or self.match[n] > count or self.config[n] & _INTERRUPTS:
                continue
            if self.config[n] & _LEVEL:
                self.status |= 1 << n
            step = self.period[n] if self.config[n] & _PERIODIC else 0
            if step:
                self.match[n] += (count - self.match[n]) // step * step
            self._advance(n, count)

    def _due(self, now):
        """The timer."""
        count = self.counter()
        retry = 0
        for n in range(_COUNT):
            match = self.match[n]
            if match == _NEVER or match > count or not self.config[n] & _INTERRUPTS:
                continue
            if self.config[n] & _LEVEL:
                self.status |= 1 << n
                self._set(n, 1)
            else:
                self._set(n, 0)
                if self._set(n, 1) == 0 and self.config[n] & _PERIODIC:
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
        plain = _NEVER  # the only one
        self._plain[_PERIOD] = 0
        if self.conf & _ENABLE:
            for n in range(_COUNT):
                match = self.match[n]
                if match == _NEVER or not self.config[n] & _INTERRUPTS or match - self.base >> 48:  # beyond a year
                    continue
                plain = _COUNT if first else n
                when = ticks_at(match - self.base, self.clock.hz, FREQUENCY)
                if self.config[n] & _PERIODIC:
                    when = max(when, soonest)
                if not first or when < first:
                    first = max(when, 1)
        if first:
            if self.timer is None:
                self.timer = self.clock.timer(self._due)
                self.timer.callback = bind(
                    _tick, uctypes.addressof(self._plain), self._driven, self.timer.arm, self._due
                )
            if plain < _COUNT:
                self._simplify(plain)
            self.timer.arm(first)
        elif self.timer:
            self.timer.cancel()

    def _simplify(self, n):
        """Comparator n is the only one enabled: let `_tick` serve it if it is periodic and edge-triggered."""
        kind = self.config[n] & (_LEVEL | _PERIODIC)
        if kind != _PERIODIC or not self._levels >> n & 1 or not 0 < self.period[n] < _PLAIN_MAX:
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
        for n in range(_COUNT):
            if self.config[n] & _LEVEL:
                self._set(n, self.status >> n & 1 if self.config[n] & _INTERRUPTS else 0)

    def _set(self, n, level):
        """Set the line that comparator n drives; returns 0 if an edge found its predecessor unserved, else 1."""
        if self._levels >> n & 1 == level:
            return 1
        self._levels ^= 1 << n
        if level == 0:
            return self._lines[n][1](0)
        number = self.config[n] >> 9 & 31
        if self.conf & _LEGACY and n < 2:
            number = 8 * n
        elif not ROUTES >> number & 1:
            self._levels ^= 1 << n
            return 1
        if self._lines[n] is None or self._lines[n][0] != number:
            self._lines[n] = number, self._line(number)
        return self._lines[n][1](1)


# The fast path of `Hpet._due`, for an operating system's tick.
@micropython.viper
def _tick(plain: int, driven, arm, slow, now: int):
    """The timer's callback; slow(now) is for all other cases. plain: address of the words."""
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
