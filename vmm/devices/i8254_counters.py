"""The counters of an 8254: counts and outputs at any time (Intel 82C54 data sheet).

Everything is computed from the period at which a count was loaded. i8254.py has the chip around them.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.oscillator import CALLBACKS_HZ, RETRIES, RETRIES_HZ, periods

FREQUENCY = const(1193182)
ZERO = const(0x20000)  # number of the first period, so that no count starts below 0

# State of counter c from word 32 * c on.
MODE = const(0)
BCD = const(1)
RW = const(2)  # 1 low byte, 2 high byte, 3 both
N = const(3)  # count in use, 1..10000h
CR = const(4)  # count written last, 1..10000h; 0: none since the control word
START = const(5)  # period at which the counter held N: low and high word
ARMED = const(7)  # counting, or stopped by the gate only
HELD = const(8)  # the count that an unarmed counter shows
GATE = const(9)
STOPPED = const(10)  # period at which the gate went low: low and high word
PENDING = const(12)  # CR comes into use at SWITCH
SWITCH = const(13)  # low and high word
SWITCH_LOW = const(15)  # mode 3: the low half begins there
HIGH_NEXT = const(16)  # the high byte is read next
WRITE_HIGH = const(17)  # the high byte is written next
WRITE_LOW = const(18)  # the low byte written
LATCHED = const(19)
LATCH = const(20)
STATUS_LATCHED = const(21)
STATUS = const(22)
PLAIN = const(23)  # armed, gate high, nothing pending, binary: mode 2 or 3, else 1; not armed: 5; all other cases: 0
NULL = const(24)  # CR was written and is not in use yet
WAY = const(25)  # where `counter_read` takes the count from: as PLAIN; 4: the latch; 5: HELD
HZ = const(26)  # the clock's frequency: low and high word
EDGE = const(28)  # counter 0: period of the next rising edge of OUT, 0 for none: low and high word
SUSPENDED = const(30)  # counter 0: its line is masked, and no timer runs
RETRIED = const(31)  # counter 0: retries since the last edge was not taken
_WORDS = const(96)

MADE_UP = const(10 * 1193182)  # periods of lost edges that are made up for


@micropython.viper
def counter_read(counter: int, now: int) -> int:
    """The next byte to be read from a counter, or -1 for the slow path. counter: address of the counter's words in
    `I8254.state`; now: the clock's time."""
    s = ptr32(counter)  # a ptr32 parameter would first be tried as a buffer
    way = s[WAY]
    if way == 4:
        count = s[LATCH]
        if s[RW] != 3 or s[HIGH_NEXT]:
            s[LATCHED] = 0
            s[WAY] = s[PLAIN]
    elif way == 5:
        count = s[HELD]
    elif way:
        hz = int(s[HZ]) | int(s[HZ + 1]) << 32
        passed = now // hz
        passed = passed * FREQUENCY + (now - passed * hz) * FREQUENCY // hz
        passed += ZERO - (int(s[START]) | int(s[START + 1]) << 32)
        count = s[N]
        if passed > 0:
            if way == 1:
                count -= passed
            elif way == 2:
                count -= passed % count
            else:
                passed = passed % count
                if passed >= (count + 1) >> 1:
                    passed -= (count + 1) >> 1
                count = (count & 0x1FFFE) - 2 * passed
        elif way == 3:
            count &= 0x1FFFE
    else:
        return -1
    if s[RW] == 3:
        if s[HIGH_NEXT] == 0:
            s[HIGH_NEXT] = 1
            return count & 0xFF
        s[HIGH_NEXT] = 0
    elif s[RW] == 1:
        return count & 0xFF
    return (count >> 8) & 0xFF


@micropython.viper
def counter_latch(counter: int, now: int) -> int:
    """The counter latch command: latch the count that `counter_read` would return now. 0: for the slow path."""
    s = ptr32(counter)
    if s[LATCHED]:
        return 1
    if s[WAY] == 0 or s[HIGH_NEXT]:
        return 0
    count = int(counter_read(counter, now))
    if s[RW] == 3:
        count |= int(counter_read(counter, now)) << 8
    elif s[RW] == 2:
        count <<= 8
    s[LATCH] = count
    s[LATCHED] = 1
    s[WAY] = 4
    return 1


# The fast path of `I8254._due`, for a running count of modes 2 and 3: an operating system's tick.
@micropython.viper
def tick(counter: int, arm, edge, slow, now: int):
    """The timer's callback; counter: address of counter 0's words. slow(now) has all other cases."""
    s = ptr32(counter)
    way = int(s[PLAIN])
    due = int(s[EDGE]) | int(s[EDGE + 1]) << 32
    hz = int(s[HZ]) | int(s[HZ + 1]) << 32
    seconds = now // hz
    period = seconds * FREQUENCY + (now - seconds * hz) * FREQUENCY // hz + ZERO
    if way < 2 or way > 3 or due == 0 or period < due or period - due > MADE_UP:
        slow(now)
        return
    served = int(edge())
    if served < 0:
        slow(now)
        return
    soonest = now + hz // CALLBACKS_HZ
    n = int(s[N])
    if served == 0:
        arm(now + int(pause(counter)))
        return
    s[RETRIED] = 0
    if served == 2:
        s[SUSPENDED] = 1
        return
    due += n
    s[EDGE] = due
    s[EDGE + 1] = due >> 32
    due -= ZERO
    seconds = due // FREQUENCY
    when = seconds * hz + ((due - seconds * FREQUENCY) * hz + (FREQUENCY - 1)) // FREQUENCY
    if when < soonest:
        when = soonest
    arm(when)


@micropython.viper
def pause(counter: int) -> int:
    """Ticks of the clock until the next retry of counter 0's edge. counter: as for tick."""
    s = ptr32(counter)
    hz = int(s[HZ]) | int(s[HZ + 1]) << 32
    step = int(s[N]) * hz // (4 * FREQUENCY)
    if step < hz // CALLBACKS_HZ:
        step = hz // CALLBACKS_HZ
    retried = int(s[RETRIED])
    longer = step << retried
    if longer > hz // RETRIES_HZ:
        longer = hz // RETRIES_HZ
    if longer < step:
        longer = step
    if retried < RETRIES:
        s[RETRIED] = retried + 1
    return longer


class Counters:
    """The three counters. `state` holds the words above of each."""

    def __init__(self, clock):
        self.clock = clock
        self.now = clock.now
        self.state = array("I", [0] * _WORDS)
        first = uctypes.addressof(self.state)
        self._counters = (first, first + 4 * 32, first + 4 * 64)

    def reader(self, offset, size):
        """reader(now) -> the byte at offset 0, 1 or 2, or -1: call read()."""
        return bind(counter_read, self._counters[offset]) if size == 1 and offset < 3 else None

    def clear(self):
        """Make all counters idle in mode 3 with OUT high, gate 2 low."""
        s = self.state
        for i in range(_WORDS):
            s[i] = 0
        for b in (0, 32, 64):
            s[b + MODE] = 3
            s[b + RW] = 3
            s[b + N] = 0x10000
            s[b + NULL] = 1
            s[b + GATE] = 1
            self._plain(b >> 5)
        s[64 + GATE] = 0
        self.count_by(self.clock.hz)

    def count_by(self, hz):
        """Set the clock's frequency for the fast paths."""
        for b in (0, 32, 64):
            self.state[b + HZ] = hz & 0xFFFFFFFF
            self.state[b + HZ + 1] = hz >> 32

    def _periods(self):
        return periods(self.now(), self.clock.hz, FREQUENCY) + ZERO

    def _get(self, at):
        """The number in two words."""
        s = self.state
        return s[at] | s[at + 1] << 32

    def _put(self, at, value):
        s = self.state
        s[at] = value & 0xFFFFFFFF
        s[at + 1] = value >> 32

    def _passed(self, c, t):
        """Periods since the counter was loaded, less those during which the gate stopped it."""
        b = c << 5
        s = self.state
        if not s[b + GATE] and s[b + MODE] not in (1, 5):
            t = self._get(b + STOPPED)
        return max(t - self._get(b + START), 0)

    def _sync(self, c, t):
        """Load the pending count of modes 2 and 3 if its time has come."""
        s = self.state
        b = c << 5
        if s[b + PENDING] and t >= self._get(b + SWITCH):
            start = self._get(b + SWITCH)
            if s[b + SWITCH_LOW]:
                start -= (s[b + CR] + 1) >> 1
            self._load(c, start)

    def _load(self, c, start):
        s = self.state
        b = c << 5
        s[b + N] = s[b + CR]
        self._put(b + START, start)
        s[b + PENDING] = s[b + NULL] = 0
        s[b + ARMED] = 1
        self._plain(c)

    def _plain(self, c):
        s = self.state
        b = c << 5
        way = 0
        if s[b + ARMED] and s[b + GATE] and not s[b + PENDING] and not s[b + BCD]:
            mode = s[b + MODE]
            way = mode if mode == 2 or mode == 3 else 1
        elif not s[b + ARMED]:
            way = 5
        s[b + PLAIN] = way
        s[b + WAY] = 0 if s[b + STATUS_LATCHED] else 4 if s[b + LATCHED] else way

    def _count(self, c, t):
        """The 16 bits that the counter shows at period `t`."""
        s = self.state
        b = c << 5
        if not s[b + ARMED]:
            return s[b + HELD]
        self._sync(c, t)
        passed = self._passed(c, t)
        n = s[b + N]
        mode = s[b + MODE]
        if mode == 2:
            count = n - passed % n
        elif mode == 3:
            passed %= n
            half = (n + 1) >> 1
            if passed >= half:
                passed -= half
            count = (n & 0x1FFFE) - 2 * passed
        else:
            count = n - passed
        if s[b + BCD]:
            count %= 10000
            return count // 1000 << 12 | count // 100 % 10 << 8 | count // 10 % 10 << 4 | count % 10
        return count & 0xFFFF

    def _out(self, c, t):
        s = self.state
        b = c << 5
        mode = s[b + MODE]
        if not s[b + ARMED]:
            return int(mode != 0)
        self._sync(c, t)
        n = s[b + N]
        if (mode == 2 or mode == 3) and not s[b + GATE]:
            return 1
        passed = self._passed(c, t)
        if mode < 2:
            return int(passed >= n)
        if mode == 2:
            return int(passed % n != n - 1)
        if mode == 3:
            return int(passed % n < (n + 1) >> 1)
        return int(passed != n)
