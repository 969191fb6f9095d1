"""A guest's time and its timers.

Time is the host's TSC plus an offset that makes it start near 0. All devices of a guest
count from it, so they agree with each other. The guest's own TSC is this plus `skew`, which
moves when the guest writes IA32_TSC or IA32_TSC_ADJUST. Timers are few (8254, MC146818,
local APIC, ...). The earliest deadline, or the end of the guest's slice where that is
earlier, stands in the vCPU frame, where the shim turns it into the VMX-preemption timer
(SDM Vol. 3C, "VMX-Preemption Timer").
"""

from array import array

import micropython
from micropython import const

_TIMERS = const(16)
_DEADLINE = const(0x110 // 4)  # word of the frame, see vmm/frame.py
_EXIT_TSC = const(0x118 // 4)
_OWED = const(0x188 // 4)
_FRAME = const(0x200)


class Timer:
    """One deadline of one device, in ticks of its clock; 0 is off."""

    def __init__(self, clock, index, callback):
        self._clock = clock
        self._words = clock.words
        self._at = 2 * index
        self.callback = callback

    @property
    def deadline(self):
        return self._words[self._at] | self._words[self._at + 1] << 32

    @micropython.viper
    def arm(self, deadline: int):
        """Call callback(now) at or after `deadline`."""
        w = ptr32(self._words)
        at = int(self._at)
        w[at] = deadline
        w[at + 1] = deadline >> 32
        self._clock.program()

    def cancel(self):
        self.arm(0)


class Clock:
    """hz: ticks a second. offset: now() minus host TSC. skew: guest TSC minus now().

    next: the earliest deadline or 0. slice_end: host TSC at which the guest's turn ends, 0: never.
    rdtsc() reads the host's TSC.
    """

    def __init__(self, hz, rdtsc):
        self.hz = hz
        self.rdtsc = rdtsc
        self.offset = -rdtsc()
        self.skew = 0
        self.next = 0
        self.slice_end = 0
        self.count = 0
        self.words = array("I", [0] * (2 * _TIMERS))
        self._callbacks = []
        self._frame = bytearray(_FRAME)

    def attach(self, frame):
        """The vCPU frame, a buffer, that gets the deadline."""
        self._frame = frame
        self.program()

    @micropython.viper
    def now(self) -> int:
        """Ticks since the guest was made."""
        return int(self.rdtsc()) + int(self.offset)

    def timer(self, callback):
        """Return a new Timer, off. IndexError beyond 16."""
        if self.count == _TIMERS:
            raise IndexError("more than %d timers" % _TIMERS)
        timer = Timer(self, self.count, callback)
        self._callbacks.append(callback)
        self.count += 1
        return timer

    @micropython.viper
    def program(self):
        """Find the earliest deadline; put it, or the end of the slice, into the frame."""
        w = ptr32(self.words)
        end = int(self.count) << 1
        first = 0
        at = 0
        while at < end:
            deadline = int(w[at]) | int(w[at + 1]) << 32
            if deadline:
                if first == 0 or deadline < first:
                    first = deadline
            at += 2
        self.next = first
        if first:
            first -= int(self.offset)
            if first < 1:
                first = 1
        stop = int(self.slice_end)
        if stop:
            if first == 0 or stop < first:
                first = stop
        f = ptr32(self._frame)
        f[_DEADLINE] = first
        f[_DEADLINE + 1] = first >> 32

    @micropython.viper
    def expire(self) -> int:
        """Call back every timer that is due; return now()."""
        w = ptr32(self.words)
        callbacks = self._callbacks
        end = int(self.count)
        now = int(self.now())
        i = 0
        while i < end:
            deadline = int(w[2 * i]) | int(w[2 * i + 1]) << 32
            if deadline:
                if deadline <= now:
                    w[2 * i] = 0
                    w[2 * i + 1] = 0
                    callbacks[i](now)
            i += 1
        self.program()
        return now

    @micropython.viper
    def exit(self, vcpu) -> int:
        """Handler of the VMX-preemption timer: RESUME, or YIELD at the end of the slice.

        The guest then runs for at least as long as this took, exits not counted, however its
        timers are set: one that is due again at once must not starve what it interrupts.
        """
        now = int(self.expire()) - int(self.offset)
        f = ptr32(vcpu)
        f[_OWED] = int(self.rdtsc()) - (int(f[_EXIT_TSC]) | int(f[_EXIT_TSC + 1]) << 32)
        stop = int(self.slice_end)
        if stop:
            if now >= stop:
                return 2
        return 0
