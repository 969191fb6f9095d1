"""A vCPU's time and its timers; those of the machine's devices are the first vCPU's.

Time is the host's TSC plus an offset that makes it start near 0. All devices of a guest
count from it, so they agree with each other. The guest's own TSC is this plus `skew`, which
moves when the guest writes IA32_TSC or IA32_TSC_ADJUST. Timers are few (8254, MC146818,
local APIC, ...). Their deadlines and the end of the guest's slice stand in the vCPU frame,
where the shim turns the earliest into the VMX-preemption timer (SDM Vol. 3C, "VMX-Preemption
Timer").
"""

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.vtx.frame import (
    CLOCK_OFFSET,
    DIRTY,
    DIRTY_TIMERS,
    DIRTY_TSC_OFFSET,
    EXIT_TSC,
    MIN_RUN,
    PARKED,
    SLICE_END,
    TIMER_COUNT,
    TIMERS,
    TSC_OFFSET,
)
from vmm.vtx.x86 import MASK64

_MOST = const(16)

MIN_RUN_MOST = const(5000)  # ticks that a guest may run on for what its exit took: guests above wait for it
AT_ONCE = const(1)  # for cut(): a host TSC that has passed

# Words of the frame, see vmm/vtx/frame.py
_FRAME = const(0xC00)

_SIGN = const(1 << 63)


class Timer:
    """One deadline of one device, in ticks of its clock; 0 is off. `word`: where it is in the frame."""

    def __init__(self, clock, index, callback):
        self.clock = clock
        self.word = TIMERS + 2 * index
        self._index = index
        self.callback = callback
        self.arm = bind(Clock.arm, clock, self.word)  # arm(deadline): call callback(now) at or after it

    @property
    def deadline(self):
        return self.clock.get(self.word)

    @property
    def callback(self):
        return self.clock.callbacks[self._index]

    @callback.setter
    def callback(self, callback):
        self.clock.callbacks[self._index] = callback

    @property
    def still_pending(self):
        """None, or still_pending(): whether its device can raise only what is pending already (Clock.park)."""
        return self.clock.still_pending[self._index]

    @still_pending.setter
    def still_pending(self, ask):
        self.clock.still_pending[self._index] = ask

    def cancel(self):
        self.arm(0)


class Clock:
    """hz: ticks a second. rdtsc() + offset is now(): the host's TSC, but for a guest whose stops are hidden
    (vmm/scheduling/stops.py)."""

    def __init__(self, hz, rdtsc, offset=None):
        self.hz = hz
        self.rdtsc = self._host = rdtsc
        self.offset = -rdtsc() if offset is None else offset
        self.began = -self.offset  # host TSC
        self.callbacks = []
        self.still_pending = []  # of each timer, see there
        self._timers = []
        self._frame = bytearray(_FRAME)
        self.put(CLOCK_OFFSET, self.offset)
        self.skew = 0

    def attach(self, frame):
        """The vCPU frame, a buffer, that holds the words from now on."""
        before = self.get
        words = (TSC_OFFSET, CLOCK_OFFSET, SLICE_END, TIMER_COUNT) + tuple(range(TIMERS, TIMERS + 2 * _MOST, 2))
        values = [before(word) for word in words]
        self._frame = frame
        for word, value in zip(words, values):
            self.put(word, value)
        self.program()

    @micropython.viper
    def get(self, word: int) -> int:
        """64 bits of the frame."""
        f = ptr32(self._frame)
        return int(f[word]) | int(f[word + 1]) << 32

    @micropython.viper
    def put(self, word: int, value: int):
        f = ptr32(self._frame)
        f[word] = value & 0xFFFFFFFF
        f[word + 1] = (value >> 32) & 0xFFFFFFFF

    @micropython.viper
    def arm(self, word: int, deadline: int):
        """A timer's deadline, 0 for none."""
        f = ptr32(self._frame)
        f[word] = deadline & 0xFFFFFFFF
        f[word + 1] = (deadline >> 32) & 0xFFFFFFFF
        f[DIRTY] |= DIRTY_TIMERS

    @micropython.viper
    def program(self):
        """The shim looks for the earliest deadline at the next entry."""
        f = ptr32(self._frame)
        f[DIRTY] |= DIRTY_TIMERS

    @property
    def from_host(self):
        """now() minus the host's TSC while the guest runs, the same in a guest's."""
        return _signed(self.get(CLOCK_OFFSET))

    def show(self, rdtsc=None):
        """now() is rdtsc() from now on; None: it follows the host's TSC."""
        if rdtsc is None:
            self.rdtsc, self.offset = self._host, self.from_host
        else:
            self.rdtsc, self.offset = rdtsc, 0

    @property
    def skew(self):
        """The guest's TSC minus now()."""
        return _signed(self.get(TSC_OFFSET) - self.from_host)

    @skew.setter
    def skew(self, value):
        self.put(TSC_OFFSET, self.from_host + value)
        self._written(DIRTY_TSC_OFFSET)

    @property
    def slice_end(self):
        """Host TSC at which the guest's turn ends, 0: never."""
        return self.get(SLICE_END)

    @slice_end.setter
    def slice_end(self, value):
        self.arm(SLICE_END, value)

    @micropython.viper
    def _written(self, dirty: int):
        f = ptr32(self._frame)
        f[DIRTY] |= dirty

    @micropython.viper
    def now(self) -> int:
        """Ticks since the guest was made."""
        return int(self.rdtsc()) + int(self.offset)

    def timer(self, callback):
        """Return a new Timer, off. IndexError beyond 16."""
        count = len(self.callbacks)
        if count == _MOST:
            raise IndexError("more than %d timers" % _MOST)
        self.callbacks.append(callback)
        self.still_pending.append(None)
        self.put(TIMER_COUNT, count + 1)
        timer = Timer(self, count, callback)
        self._timers.append(timer)
        return timer

    @micropython.viper
    def park(self):
        """The guest is halted, and those of its timers that were due have not woken it: the ones that are set again in
        still_pending are not checked until it has run. Guests above wait for it."""
        f = ptr32(self._frame)
        asked = self.still_pending
        count = int(f[TIMER_COUNT])
        parked = 0
        i = 0
        while i < count:
            if f[TIMERS + 2 * i] | f[TIMERS + 2 * i + 1]:
                ask = asked[i]
                if ask and int(ask()):
                    parked |= 1 << i
            i += 1
        f[PARKED] = parked

    @property
    def next(self):
        """The earliest deadline, 0 for none."""
        return min([timer.deadline for timer in self._timers if timer.deadline] or [0])

    def cut(self, ticks):
        """The guest's turn ends in so many ticks at the latest."""
        cut(uctypes.addressof(self._frame), self._host() + ticks)

    @micropython.viper
    def expire(self) -> int:
        """Call back every timer that is due; return now()."""
        now = int(self.now())
        expire(self.callbacks, uctypes.addressof(self._frame), now)
        return now

    def preemption_timer(self):
        """Return the handler of the VMX-preemption timer: RESUME, or YIELD at the end of the slice."""
        return bind(_exit, self.callbacks)


def _signed(value):
    return ((value & MASK64) ^ _SIGN) - _SIGN


@micropython.viper
def cut(frame: int, end: int):
    """A guest's turn ends at this host TSC at the latest. frame: hpa of its vCPU frame."""
    f = ptr32(frame)
    stop = int(f[SLICE_END]) | int(f[SLICE_END + 1]) << 32
    if stop == 0 or end < stop:
        f[SLICE_END] = end
        f[SLICE_END + 1] = end >> 32
        f[DIRTY] |= DIRTY_TIMERS


@micropython.viper
def expire(callbacks, frame: int, now: int):
    """Call back every timer that is due at `now`, by the guest's clock. frame: hpa of the vCPU frame."""
    f = ptr32(frame)
    first = frame + 4 * int(TIMERS)
    at = first
    end = at + (int(f[TIMER_COUNT]) << 3)
    while at < end:
        timer = ptr32(at)
        deadline = int(timer[0]) | int(timer[1]) << 32
        if deadline:
            if deadline <= now:
                timer[0] = 0
                timer[1] = 0
                f[DIRTY] |= DIRTY_TIMERS
                callbacks[(at - first) >> 3](now)
        at += 8


# As expire, inlined, since the guest waits.
@micropython.viper
def _exit(callbacks, vcpu) -> int:
    """Where a callback sets its timer again, or the slice is over, the guest then runs for at least as long as this
    took, up to MIN_RUN_MOST: a timer that is due again at once, or a slice that is over before the guest is entered,
    must not starve what it interrupts. A timer that the guest has to set again cannot."""
    f = ptr32(vcpu)
    host = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
    now = host + (int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32)
    first = int(f) + 4 * int(TIMERS)
    at = first
    end = at + (f[TIMER_COUNT] << 3)
    while at < end:
        timer = ptr32(at)
        deadline = timer[0] | timer[1] << 32
        if deadline:
            if deadline <= now:
                timer[0] = 0
                timer[1] = 0
                f[DIRTY] |= DIRTY_TIMERS
                callbacks[(at - first) >> 3](now)
                if timer[0] | timer[1]:
                    f[MIN_RUN] = 0xFFFFFFFF
                    f[MIN_RUN + 1] = 0xFFFFFFFF
        at += 8
    stop = f[SLICE_END] | f[SLICE_END + 1] << 32
    if stop:
        if host >= stop:
            f[MIN_RUN] = 0xFFFFFFFF
            f[MIN_RUN + 1] = 0xFFFFFFFF
            return 2
    return 0
