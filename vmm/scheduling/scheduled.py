"""What the scheduler knows of a VM, as attributes; the words themselves stand in its vCPU frame."""

import micropython
import uctypes
from micropython import const

from vmm.scheduling import sched
from vmm.vtx.events import wakes
from vmm.vtx.frame import (
    APIC_PAGE,
    GUEST_TICKS,
    HOST_TICKS,
    LATE,
    LATEST,
    PRIORITY,
    SHARE,
    STARTS,
    STATE,
    TURN,
    WAKES,
)

_STATES = {sched.RUNNING: sched.RUNS, sched.HALTED: sched.WAITS}
_FRAME = const(0x1000)


class Scheduled:
    """state, priority, share (of equals, 100 is usual) and turn (virtual time) of a VM."""

    def schedule(self, frame, apic_page, priority, share):
        """frame, apic_page: hpa of the vCPU frame and of the local APIC's page."""
        self._frame = frame
        self._words = uctypes.bytearray_at(frame, _FRAME)
        self._still = sched.OFF
        self._seen = (0, 0)
        _put(self._words, APIC_PAGE, apic_page)
        self.priority = priority
        self.share = share

    def unschedule(self):
        """The frame has been given back: a copy of its words serves from now on."""
        self._words = bytearray(_FRAME)
        self._frame = uctypes.addressof(self._words)
        self.share = 1

    @property
    def state(self):
        """One of "running", "halted", "paused", "stopped", "off"."""
        word = _get(self._words, STATE)
        return sched.RUNNING if word == sched.RUNS else sched.HALTED if word == sched.WAITS else self._still

    @state.setter
    def state(self, value):
        self._still = value
        _put(self._words, STATE, _STATES.get(value, sched.STILL))

    @property
    def priority(self):
        return _get(self._words, PRIORITY)

    @priority.setter
    def priority(self, value):
        if not 0 <= value <= 255:
            raise ValueError("priority %r: a number from 0 to 255" % (value,))
        _put(self._words, PRIORITY, value)

    @property
    def share(self):
        return _get(self._words, SHARE)

    @share.setter
    def share(self, value):
        if not 1 <= value <= 10000:
            raise ValueError("share %r: a number from 1 to 10000" % (value,))
        _put(self._words, SHARE, value)

    @property
    def turn(self):
        return _get(self._words, TURN)

    @turn.setter
    def turn(self, value):
        _put(self._words, TURN, value)

    @property
    def starts(self):
        """How often the guest was started or reset."""
        return _get(self._words, STARTS)

    @starts.setter
    def starts(self, value):
        _put(self._words, STARTS, value)

    def wakes(self):
        """Whether the vCPU, if it is at HLT, has something to wake up for."""
        return bool(wakes(self._frame))

    def used(self):
        """Return (guest ticks, host ticks since the call before; wake-ups, the sum of their lateness, the
        longest, since the call before)."""
        words = self._words
        now = _get(words, GUEST_TICKS), _get(words, HOST_TICKS)
        guest, host = now[0] - self._seen[0], now[1] - self._seen[1]
        self._seen = now
        wakes = _get(words, WAKES), _get(words, LATE), _get(words, LATEST)
        for word in (WAKES, LATE, LATEST):
            _put(words, word, 0)
        return (guest, host) + wakes


@micropython.viper
def _get(words, at: int) -> int:
    f = ptr32(words)  # noqa: F821
    return int(f[at]) | int(f[at + 1]) << 32


@micropython.viper
def _put(words, at: int, value: int):
    f = ptr32(words)  # noqa: F821
    f[at] = value
    f[at + 1] = value >> 32
