"""8254 programmable interval timer and the PC's port 61h (Intel 82C54 and 82371SB data sheets).

Counts are computed from the clock when they are read, in periods of 1193182 Hz since the clock's zero; a timer runs
only for the rising edge of counter 0, the interrupt. A late timer loses no edge: up to 10 s of edges of the periodic
modes are made up for one by one, each as soon as the interrupt controller has taken the one before (`irq` returns 0
until then). While the line is masked no timer runs (`edge` returns 2) and its edges are dropped; `unmasked` resumes
with the next one. Gates 0 and 1 are tied high, gate 2 is bit 0 of port 61h. Between a write and the next period, in
which the chip loads the count, the old count is not shown.
"""

import micropython
from micropython import const
from vmx import bind

from vmm.devices import saved
from vmm.devices.i8254_counters import (
    ARMED,
    BCD,
    CR,
    EDGE,
    FREQUENCY,
    GATE,
    HELD,
    HIGH_NEXT,
    LATCH,
    LATCHED,
    MADE_UP,
    MODE,
    NULL,
    PENDING,
    RETRIED,
    RW,
    START,
    STATUS,
    STATUS_LATCHED,
    STOPPED,
    SUSPENDED,
    SWITCH,
    SWITCH_LOW,
    WRITE_HIGH,
    WRITE_LOW,
    ZERO,
    Counters,
    N,
    counter_latch,
    counter_read,
    pause,
    tick,
)
from vmm.devices.oscillator import CALLBACKS_HZ, periods, ticks_at

CONTROL = const(3)
_PORT_61 = const(4)

_SAVED = ("state", "_port61")

_REFRESH_PERIODS = const(18)  # 15 us, port 61h bit 4 toggles
GATE_2 = const(0x01)  # of port 61h
SPEAKER = const(0x02)
OUT_2 = const(0x20)

_STATUS_OUT = const(0x80)
_STATUS_NULL = const(0x40)


def _never():
    return -1


class I8254(Counters):
    """Offsets 0..2 the counters (40h..42h), 3 the control word (43h), 4 port 61h.

    `irq(level)` is OUT of counter 0; it returns 0 if the edge before has not been served yet. `speaker(on)`, optional,
    is called when port 61h bit 1 changes. `edge()`, optional, lowers and raises the line in one call: 0 or 1 as `irq`,
    2 where the line is masked until `unmasked` is called, or -1 if `irq` has to be used.
    """

    def __init__(self, irq, clock, speaker=None, edge=_never):
        super().__init__(clock)
        self.irq = irq
        self.speaker = speaker
        self.level = 0  # of OUT 0, as last given to irq()
        self.timer = clock.timer(self._due)
        self.timer.still_pending = self._still_pending
        self.timer.callback = bind(tick, self._counters[0], self.timer.arm, edge, self._due)
        self._port61 = 0
        self.reset()

    @property
    def edge(self):
        """Period of the next rising edge of OUT 0; 0: none."""
        return self._get(EDGE)

    @edge.setter
    def edge(self, period):
        self._put(EDGE, period)

    def reset(self):
        """All counters idle in mode 3 with OUT high, gate 2 low."""
        self.timer.cancel()
        self.edge = 0
        self.clear()
        self._port61 = 0
        self._drive(1)

    def save(self):
        state = saved.save(self, _SAVED)
        state["level"], state["timer"] = self.level, self.timer.deadline
        return state

    def load(self, state):
        saved.need(self, ("level", "timer"), state)
        saved.load(self, _SAVED, state)
        self.count_by(self.clock.hz)
        saved.wait(self.timer, state["timer"])
        if self.speaker:
            self.speaker(self._port61 >> 1 & 1)
        self._drive(state["level"])

    def __repr__(self):
        from vmm.debug import chips

        return chips.pit(self)

    # 1,490 for a running count, of which `now` 360.
    @micropython.viper
    def read(self, offset: int, size: int) -> int:
        """A byte of a counter (latched status, latched count or current count), or port 61h."""
        if offset >= 0:
            if offset < CONTROL:
                value = int(counter_read(self._counters[offset], int(self.now())))
                if value >= 0:
                    return value
                return int(self._read_count(offset))
            if offset == _PORT_61:
                return int(self._read_61())
        return 0xFF

    def _read_count(self, c):
        """The slow path of `counter_read`: a latched status, a stopped or BCD count."""
        s = self.state
        b = c << 5
        if s[b + STATUS_LATCHED]:
            s[b + STATUS_LATCHED] = 0
            self._plain(c)
            return s[b + STATUS]
        if s[b + LATCHED]:
            count = s[b + LATCH]
        else:
            count = self._count(c, self._periods())
        rw = s[b + RW]
        if rw == 3:
            s[b + HIGH_NEXT] ^= 1
            if s[b + HIGH_NEXT]:
                return count & 0xFF
        s[b + LATCHED] = 0
        self._plain(c)
        return count & 0xFF if rw == 1 else count >> 8

    # A latched count: 3,000, where bytecode takes 21,000.
    @micropython.viper
    def write(self, offset: int, size: int, value: int):
        """A byte of a count, a control word, or port 61h."""
        if offset == CONTROL and value & 0x30 == 0:
            counter = (value >> 6) & 3
            if counter < 3:
                if int(counter_latch(self._counters[counter], int(self.now()))):
                    return
        self._write(offset, value & 0xFF)

    def _write(self, offset, value):
        if 0 <= offset < CONTROL:
            self._write_count(offset, value)
        elif offset == CONTROL:
            counter = value >> 6
            if counter == 3:
                self._read_back(value)
            elif value & 0x30:
                self._control(counter, value)
            else:
                self._latch(counter)
        elif offset == _PORT_61:
            self._write_61(value)

    def out(self, counter):
        """Level of the counter's OUT now."""
        return self._out(counter, self._periods())

    def _control(self, c, value):
        """A control word stops the counter until a count is written."""
        s = self.state
        b = c << 5
        t = self._periods()
        s[b + HELD] = self._count(c, t)
        if c == 0:
            self._drive(self._out(0, t))  # the timer drives rising edges only, each after a fall
        mode = value >> 1 & 7
        s[b + MODE] = mode if mode < 6 else mode - 4
        s[b + RW] = value >> 4 & 3
        s[b + BCD] = value & 1
        s[b + ARMED] = s[b + PENDING] = 0
        s[b + HIGH_NEXT] = s[b + WRITE_HIGH] = s[b + LATCHED] = s[b + STATUS_LATCHED] = 0
        self._plain(c)
        s[b + CR] = 0
        s[b + NULL] = 1
        if c == 0:
            self._schedule(t)
            self._drive(int(mode != 0))

    def _write_count(self, c, value):
        s = self.state
        b = c << 5
        rw = s[b + RW]
        if rw == 3 and not s[b + WRITE_HIGH]:
            s[b + WRITE_HIGH] = 1
            s[b + WRITE_LOW] = value
            if s[b + MODE] == 0 and s[b + ARMED]:  # the first byte stops a count of mode 0
                s[b + HELD] = self._count(c, self._periods())
                s[b + ARMED] = 0
                self._plain(c)
                if c == 0:
                    self._schedule(0)
                    self._drive(0)
            return
        s[b + WRITE_HIGH] = 0
        if rw == 3:
            value = value << 8 | s[b + WRITE_LOW]
        elif rw == 2:
            value <<= 8
        t = self._periods()
        self._sync(c, t)  # with the count written before
        if s[b + BCD]:
            value = ((value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15)) % 10000
            s[b + CR] = value if value else 10000
        else:
            s[b + CR] = value if value else 0x10000
        self._written(c, t)

    def _written(self, c, t):
        """A count is complete at `t`; the mode decides when it is loaded."""
        s = self.state
        b = c << 5
        mode = s[b + MODE]
        s[b + NULL] = 1
        if mode == 1 or mode == 5:
            return  # loaded by the gate's rising edge
        if mode == 0 or mode == 4 or not s[b + ARMED]:
            self._load(c, t + 1)
            self._put(b + STOPPED, t + 1)
        elif s[b + GATE]:
            n = s[b + N]
            passed = t - self._get(b + START)
            switch = self._get(b + START) + passed // n * n
            half = (n + 1) >> 1
            low = mode == 3 and passed >= 0 and passed % n < half
            self._put(b + SWITCH, switch + (half if low else n))
            s[b + SWITCH_LOW] = int(low)
            s[b + PENDING] = 1
            self._plain(c)
        if c == 0:
            self._schedule(t)
            if mode == 0:
                self._drive(0)

    def _gate(self, c, level):
        s = self.state
        b = c << 5
        if level == s[b + GATE]:
            return
        t = self._periods()
        mode = s[b + MODE]
        self._sync(c, t)
        if not level:
            self._put(b + STOPPED, max(t, self._get(b + START)))
            s[b + PENDING] = 0  # modes 2 and 3: the next rising edge loads the count
        elif mode == 0 or mode == 4:
            self._put(b + START, self._get(b + START) + max(t - self._get(b + STOPPED), 0))
        elif s[b + CR]:
            self._load(c, t + 1)
        s[b + GATE] = level
        self._plain(c)

    def _latch(self, c):
        """Counter latch command: a value that is latched already stays."""
        s = self.state
        b = c << 5
        if not s[b + LATCHED]:
            s[b + LATCH] = self._count(c, self._periods())
            s[b + LATCHED] = 1
            self._plain(c)

    def _read_back(self, value):
        """Read-back command: bits 3..1 the counters, bit 5 clear for the count, bit 4 clear for the status."""
        s = self.state
        t = self._periods()
        for c in range(3):
            if value >> (c + 1) & 1:
                b = c << 5
                if not value & 0x20:
                    self._latch(c)
                if not value & 0x10 and not s[b + STATUS_LATCHED]:
                    self._sync(c, t)
                    null = _STATUS_NULL if s[b + NULL] else 0
                    out = _STATUS_OUT if self._out(c, t) else 0
                    s[b + STATUS] = out | null | s[b + RW] << 4 | s[b + MODE] << 1 | s[b + BCD]
                    s[b + STATUS_LATCHED] = 1
                    self._plain(c)

    def _read_61(self):
        """Bits 3..0 as written, bit 4 the refresh toggle, bit 5 OUT 2."""
        t = self._periods()
        return self._port61 | (t // _REFRESH_PERIODS & 1) << 4 | (OUT_2 if self._out(2, t) else 0)

    def _write_61(self, value):
        changed = self._port61 ^ value
        self._port61 = value & 0x0F
        self._gate(2, value & GATE_2)
        if changed & SPEAKER and self.speaker:
            self.speaker(value >> 1 & 1)

    def _drive(self, level):
        if level != self.level:
            self.level = level
            self.irq(level)

    @micropython.viper
    def _still_pending(self) -> int:
        """Whether the last edge has not been served yet."""
        return ptr32(self.state)[RETRIED]

    def unmasked(self):
        """The line may have been unmasked: resume with the next edge."""
        s = self.state
        if s[SUSPENDED]:
            s[SUSPENDED] = 0
            late = self._periods() - self.edge
            if late >= 0:
                self.edge += (late // s[N] + 1) * s[N]
            self.timer.arm(ticks_at(self.edge - ZERO, self.clock.hz, FREQUENCY))

    def _schedule(self, t):
        """Finds the next rising edge of OUT 0 after the counter was written at `t`."""
        s = self.state
        mode = s[MODE]
        s[SUSPENDED] = s[RETRIED] = 0
        self.timer.cancel()
        self.edge = 0
        if not s[ARMED]:
            return
        if s[PENDING]:
            self.edge = self._get(SWITCH) + (s[CR] >> 1 if s[SWITCH_LOW] else 0)
        elif mode == 2 or mode == 3:
            n = s[N]
            start = self._get(START)
            self.edge = start + (max(t - start, 0) // n + 1) * n
        else:
            self.edge = self._get(START) + s[N] + (mode == 4)
        self.timer.arm(ticks_at(self.edge - ZERO, self.clock.hz, FREQUENCY))

    def _due(self, now):
        """The timer: one rising edge of OUT 0; further edges that are due follow as each is taken."""
        s = self.state
        hz = self.clock.hz
        t = periods(now, hz, FREQUENCY) + ZERO
        if not self.edge:
            return
        if t < self.edge:
            self.timer.arm(ticks_at(self.edge - ZERO, hz, FREQUENCY))
            return
        mode = s[MODE]
        if mode == 0:
            self.edge = 0
            self._drive(1)
            return
        self._drive(0)
        self.level = 1
        served = self.irq(1)
        if mode != 2 and mode != 3:
            self.edge = 0
            return
        if served == 0:
            self.timer.arm(now + pause(self._counters[0]))
            return
        s[RETRIED] = 0
        soonest = now + hz // CALLBACKS_HZ
        n = s[N]
        self._sync(0, self.edge)
        n = s[N]
        if t - self.edge > MADE_UP:
            self.edge += (t - self.edge) // n * n
        self.edge += n
        self.timer.arm(max(soonest, ticks_at(self.edge - ZERO, hz, FREQUENCY)))
