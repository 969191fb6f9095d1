"""High-precision event timers: a 64-bit main counter of 10 MHz and three comparators, each one-shot or periodic, edge-
or level-triggered (IA-PC HPET specification 1.0a).

The counter is computed from the clock when it is read, and so are the matches of a comparator whose interrupt is
disabled. The clock's timer exists from the first enabled comparator on. Lost edges of a periodic comparator are made up
for one by one, each as soon as the interrupt controller has taken the one before. A comparator that is written with a
value less than a second behind the counter matches at once: the guest may have been descheduled between reading the
counter and writing. Limits: no FSB (message) delivery.
"""

import micropython
from micropython import const

from vmm.devices import saved
from vmm.devices.hpet_comparators import (
    COUNT,
    ENABLE,
    INTERRUPTS,
    JUST,
    LEGACY,
    LEVEL,
    NEVER,
    ONLY_32_BITS,
    PERIODIC,
    PLAIN_BITS,
    RATE_WIDE,
    ROUTES,
    Comparators,
    any_match,
    count_of,
)
from vmm.vtx.x86 import MASK32, MASK64

PERIOD_FS = const(100000000)
SIZE = const(0x400)
ID = const(0x8086A201)  # Intel's, legacy replacement, 64-bit counter, three comparators, revision 1

# Registers; the comparators' are 20h apart.
_CAP = const(0x000)
_CONF = const(0x010)
_STATUS = const(0x020)
_COUNTER = const(0x0F0)
_TIMERS = const(0x100)
_TIMERS_END = const(0x160)
_TIMER_CONF = const(0x00)
_COMPARATOR = const(0x08)


_CAPABLE = const(1 << 4 | 1 << 5)  # periodic, 64 bits
_SET = const(1 << 6)
_WRITABLE = const(0x3F4E)
_ROUTE = const(0x3E00)

_SAVED = ("status", "config", "comparator", "period", "match")


class Hpet(Comparators):
    """Registers at their offsets.

    line(n) gives a new source on interrupt line n (Gsi.line). legacy(on) is called when the guest lets
    comparators 0 and 1 replace the 8254 on line 0 and the MC146818 on line 8, and when it ends that.
    """

    def __init__(self, clock, line, legacy):
        Comparators.__init__(self, clock, line)
        self._legacy = legacy
        self.reset()

    def reset(self):
        """The counter 0 and halted, all comparators all ones and disabled."""
        if self.conf & LEGACY:
            self._legacy(0)
        for n in range(COUNT):
            self._set(n, 0)
        self._lines = [None] * COUNT
        self.conf = self.status = 0
        self._rebase(0)
        self.comparator = [MASK64] * COUNT  # as written; of a periodic one the value last set by _SET
        self.period = [0] * COUNT
        for n in range(COUNT):
            self.config[n] = 0
            self.match[n] = NEVER
        self._arm()

    def save(self):
        state = saved.save(self, _SAVED)
        state["conf"], state["base"], state["levels"] = self.conf, self.base, self._levels
        state["timer"] = self.timer.deadline if self.timer else 0
        return state

    def load(self, state):
        saved.need(self, ("conf", "base", "levels", "timer"), state)
        for n in range(COUNT):
            self._set(n, 0)
        if (self.conf ^ state["conf"]) & LEGACY:
            self._legacy(state["conf"] >> 1 & 1)
        saved.load(self, _SAVED, state)
        self.conf = state["conf"]
        self._rebase(state["base"])
        for n in range(COUNT):
            self._set(n, state["levels"] >> n & 1)
        self._arm()
        if self.timer:
            saved.wait(self.timer, state["timer"])

    # In bytecode a read of the counter takes 4,000 ticks; Linux, which calibrates its TSC by it, takes that for an SMI.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """`size` bytes of the register at `offset`."""
        at = offset & 0xFF8
        value = 0
        rate = ptr32(self._rate)
        if size < 4 or offset & 3 or offset + size > at + 8:
            return int(self._read(offset, size))
        if at == _COUNTER and rate[RATE_WIDE] == 0:
            value = int(count_of(rate, self._now))
        elif at == _CONF:
            value = int(self.conf)
        elif at == _CAP:
            value = PERIOD_FS << 32 | ID
        elif at >= _TIMERS and at < _TIMERS_END and at & 0x1F == _TIMER_CONF:
            value = ROUTES << 32 | int(ptr32(self.config)[at - _TIMERS >> 5]) | _CAPABLE
        else:
            return int(self._read(offset, size))
        if size == 4:
            value = value >> ((offset & 4) << 3) & MASK32
        return value

    def _read(self, offset, size):
        if offset + size > (offset | 7) + 1:  # across two registers
            return 0
        return self._register(offset & ~7) >> 8 * (offset & 7) & (1 << 8 * size) - 1

    def _register(self, at):
        if at == _COUNTER:
            return self.counter() & MASK64
        if at == _CAP:
            return PERIOD_FS << 32 | ID
        if at == _CONF:
            return self.conf
        if at == _STATUS:
            self._look()
            return self.status
        n = at - _TIMERS >> 5
        if 0 <= n < COUNT:
            at &= 0x1F
            if at == _TIMER_CONF:
                return ROUTES << 32 | self.config[n] | _CAPABLE
            if at == _COMPARATOR:
                return self._compared(n)
        return 0

    # In bytecode a write of a comparator takes 28,000 ticks.
    @micropython.viper
    def write(self, offset: int, size: int, value):
        """Write the register at `offset`, or half of it; narrower writes are undefined and ignored."""
        if size != 8 or offset & 0x1F != _COMPARATOR or offset < _TIMERS or offset >= _TIMERS_END:
            self._write(offset, size, value)
            return
        n = offset - _TIMERS >> 5
        rate = ptr32(self._rate)
        config = ptr32(self.config)
        match = ptr32(self.match)
        number = int(value)
        if config[n] & ONLY_32_BITS:
            number &= MASK32
        if config[n] & (PERIODIC | INTERRUPTS) or rate[RATE_WIDE] or number >> PLAIN_BITS:
            self._write(offset, size, value)
            return
        count = int(count_of(rate, self._now))
        if count >> PLAIN_BITS or int(any_match(match, config, 0, count)):
            self._write(offset, size, value)
            return
        self.comparator[n] = number
        ahead = number - count
        if config[n] & ONLY_32_BITS:
            ahead &= MASK32
            if ahead > MASK32 - JUST:
                ahead = 0
        if ahead < 0 and ahead >= 0 - JUST:
            ahead = 0
        at = count + ahead
        if ahead < 0 or int(self.conf) & ENABLE == 0:
            at = int(NEVER)
        match[2 * n] = at & MASK32
        match[2 * n + 1] = at >> 32 & MASK32

    def _write(self, offset, size, value):
        at = offset & ~7
        if size < 4 or offset & 3 or offset + size > at + 8:
            return
        if at == _CONF:
            if offset == at:
                self._configure(value & (ENABLE | LEGACY))
        elif at == _STATUS:
            if offset == at:
                self._look()
                self.status &= ~value
                self._drive()
        elif at == _COUNTER:
            count = self._merged(self.counter() & MASK64, offset, size, value)
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
            return old & MASK32 | (value & MASK32) << 32
        return old & ~MASK32 | value & MASK32

    def _configure(self, value):
        changed = self.conf ^ value
        self._look()
        if not changed:
            return
        if changed & ENABLE:
            count = self.counter() & MASK64
            self.conf ^= ENABLE
            self._rebase(count)
            if value & ENABLE:
                self._rebase(2 * count - self.counter())
        if changed & LEGACY:
            for n in range(COUNT):
                self._set(n, 0)
            self.conf ^= LEGACY
            self._legacy(value >> 1 & 1)
        if changed & ENABLE:
            self._restart()
        else:
            self._arm()

    def _configure_timer(self, n, value):
        old = self.config[n]
        self._look()
        if not ROUTES >> (value >> 9 & 31) & 1:
            value = value & ~_ROUTE | old & _ROUTE
        if value == old:
            return
        if (old ^ value) & (_ROUTE | LEVEL | INTERRUPTS):
            self._set(n, 0)
        if not value & LEVEL:
            self.status &= ~(1 << n)
        self.config[n] = value
        if value & ONLY_32_BITS:
            self.comparator[n] &= MASK32
            self.period[n] &= MASK32
        if (old ^ value) & (PERIODIC | ONLY_32_BITS):
            self._begin(n, 0)
        self._drive()
        self._arm()

    def _compare(self, n, offset, size, value):
        """Write a comparator. In periodic mode the value is the period, and, after _SET, the next match too."""
        config = self.config[n]
        if config & ONLY_32_BITS:
            if offset & 4:
                return
            size, value = 8, value & MASK32
        self._look()
        if config & PERIODIC:
            self.period[n] = self._merged(self.period[n], offset, size, value)
            if not config & _SET:
                if self.match[n] == NEVER:
                    self._begin(n, 0)
                self._arm()
                return
            self.config[n] = config & ~_SET
        self.comparator[n] = self._merged(self.comparator[n], offset, size, value)
        self._begin(n, JUST)
        self._arm()

    def _compared(self, n):
        """The comparator as it is read: in periodic mode the next match."""
        self._look()
        if self.config[n] & PERIODIC and self.match[n] != NEVER:
            return self.match[n] & (MASK32 if self.config[n] & ONLY_32_BITS else MASK64)
        return self.comparator[n]
