"""The scheduler's state of a vCPU and of a VM, as attributes; the words themselves are in the vCPU frames.

Priority and share are the VM's; each frame has them, since the scheduler looks there. All else is the vCPU's.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const

from vmm.scheduling import states
from vmm.scheduling.preemption import hold
from vmm.vtx.events import wakes
from vmm.vtx.frame import (
    APIC_PAGE,
    DUE,
    GUEST_TICKS,
    HOST_TICKS,
    LATE,
    LATEST,
    PARKED,
    PRIORITY,
    SHARE,
    STARTS,
    STATE,
    TIMED,
    TURN,
    WAKES,
)

_STATES = {states.RUNNING: states.RUNS, states.HALTED: states.WAITS, states.WAIT_FOR_SIPI: states.WAITS}
_ACTIVE = tuple(_STATES)
_FRAME = const(0x1000)
_SEEN = const(4)  # words of the first two
_COUNTS = array("I", [GUEST_TICKS, HOST_TICKS, WAKES, TIMED, LATE, LATEST])  # what used() returns


class Scheduled:
    """One vCPU: vcpu.scheduled. before: the state that it goes back to from a pause."""

    def __init__(self, frame, apic_page):
        """frame, apic_page: hpa of the vCPU frame and of its local APIC's page."""
        self.frame = frame
        self._words = uctypes.bytearray_at(frame, _FRAME)
        self._still = states.OFF
        self.waits_for_sipi = False
        self.before = states.RUNNING
        self._seen = array("I", bytes(4 * _SEEN))  # guest and host ticks at the last used()
        _put(self._words, APIC_PAGE, apic_page)

    def detach(self, words):
        """The frame has been given back: from now on these words are used, which all destroyed guests share."""
        self._words = words
        self.frame = uctypes.addressof(words)
        self.put(SHARE, 1)

    def get(self, word):
        """64 bits of the frame."""
        return _get(self._words, word)

    def put(self, word, value):
        _put(self._words, word, value)

    @property
    def state(self):
        """One of "running", "halted", "wait-for-SIPI", "paused", "stopped", "off"."""
        word = _get(self._words, STATE) & states.HOLD - 1
        if word == states.RUNS:
            return states.RUNNING
        if word == states.WAITS:
            return states.WAIT_FOR_SIPI if self.waits_for_sipi else states.HALTED
        return self._still

    @state.setter
    def state(self, value):
        self.waits_for_sipi = value == states.WAIT_FOR_SIPI
        self._still = value
        _put(self._words, PARKED, 0)
        held = _get(self._words, STATE) & ~(states.HOLD - 1)
        _put(self._words, STATE, held | _STATES.get(value, states.STILL))

    @property
    def held(self):
        """Whether it is not to be entered, whatever its state (ScheduledVm.hold)."""
        return _get(self._words, STATE) >= states.HOLD

    def wait_for_sipi(self):
        """INIT has come: now, or once its VM goes on, it waits for SIPI."""
        if self.state in _ACTIVE:
            self.state = states.WAIT_FOR_SIPI
        else:
            self.before = states.WAIT_FOR_SIPI

    def stand(self, state):
        """Stand still; go() restores the state before."""
        now = self.state
        if now in _ACTIVE:
            self.before = now
        self.state = state
        self.put(DUE, 0)

    def go(self):
        """Go on after stand()."""
        self.state, self.before = self.before, states.RUNNING

    def wakes(self):
        """Whether the vCPU, if it is at HLT, has something to wake up for."""
        return bool(wakes(self.frame))

    def due(self, deadline):
        """Its next entry is for a timer whose deadline, in host TSC, is this; 0: for none."""
        self.put(DUE, deadline)

    def woken(self):
        """One more wake-up."""
        self.put(WAKES, self.get(WAKES) + 1)

    def ticks(self):
        """(guest ticks, host ticks) so far."""
        return _get(self._words, GUEST_TICKS), _get(self._words, HOST_TICKS)

    def used(self):
        """Return (guest ticks, host ticks, wake-ups, how many of them for a timer, the sum of their lateness, the
        longest), all since the call before. One step copies them: the vCPU may run in the middle of a line. Between two
        of the numbers that are made of them guests above may run: all six took 13,000 ticks without a branch."""
        taken = array("I", bytes(8 * len(_COUNTS)))
        _take(self._words, _COUNTS, taken, self._seen)
        return tuple([_get(taken, at) for at in range(0, 2 * len(_COUNTS), 2)])


class ScheduledVm:
    """A VM for the scheduler: its vCPUs run, each by its vcpu.scheduled; priority and share are the VM's.

    For users: priority, share, starts, state, ticks.
    """

    def schedule(self, priority, share):
        """Take part, with the vCPUs that now exist."""
        self._scheduled = [vcpu.scheduled for vcpu in self.vcpus]
        self.priority = priority
        self.share = share

    def unschedule(self):
        """Its frames have been given back."""
        for scheduled in self._scheduled:
            scheduled.detach(self.monitor.gone)

    @property
    def state(self):
        """One of "running" (a vCPU can run), "halted", "paused", "stopped", "off"."""
        first = self._scheduled[0].state
        if first == states.HALTED:
            for scheduled in self._scheduled:
                if scheduled.state == states.RUNNING:
                    return states.RUNNING
        return first

    def hold(self, more):
        """more: 1, what follows changes the guest in more than one step: it is not entered until hold(-1), while others
        go on. Needed where a guest of a higher priority may run in between, this one among them: in lines at the
        prompt, and in policies of other guests."""
        for scheduled in self._scheduled:
            hold(self.monitor.scheduler, scheduled.frame, more)

    @property
    def held(self):
        """Whether something changes it in more than one step."""
        return self._scheduled[0].held

    def hold_others(self, vcpu, more):
        """more: 1, no vCPU but this one is entered until hold_others(vcpu, -1)."""
        for scheduled in self._scheduled:
            if scheduled is not vcpu.scheduled:
                hold(self.monitor.scheduler, scheduled.frame, more)

    @property
    def current(self):
        """The vCPU whose exit loop runs, else the first one."""
        inside = self.monitor.scheduler.inside_vcpu
        return inside if inside is not None and inside.vm is self else self.vcpus[0]

    def steadily(self, work, *args):
        """work(*args), while the guest is held."""
        self.hold(1)
        try:
            return work(*args)
        finally:
            self.hold(-1)

    @property
    def priority(self):
        """0 to 255; guests of a higher one go first. It can be set."""
        return self._scheduled[0].get(PRIORITY)

    @priority.setter
    def priority(self, value):
        if not isinstance(value, int) or not 0 <= value <= 255:
            raise ValueError("priority %r: a number from 0 to 255" % (value,))
        scheduler = self.monitor.scheduler
        cpu.hold(1)
        try:
            for scheduled in self._scheduled:
                scheduled.put(PRIORITY, value)
            self.turn = scheduler.now(value)  # each priority has its own virtual time
            scheduler.place(self)
        finally:
            cpu.hold(-1)

    @property
    def share(self):
        """Its share of the CPU among guests of its priority, 1 to 10000; 100 is usual. It can be set."""
        return self._scheduled[0].get(SHARE)

    @share.setter
    def share(self, value):
        if not isinstance(value, int) or not 1 <= value <= 10000:
            raise ValueError("share %r: a number from 1 to 10000" % (value,))
        for scheduled in self._scheduled:
            scheduled.put(SHARE, value)

    @property
    def turn(self):
        return self._scheduled[0].get(TURN)

    @turn.setter
    def turn(self, value):
        for scheduled in self._scheduled:
            scheduled.put(TURN, value)

    def catch_up(self):
        """It gets no credit for turns that it missed while it stood still."""
        self.turn = max(self.turn, self.monitor.scheduler.now(self.priority))

    @property
    def starts(self):
        """How often the guest was started or reset."""
        return self._scheduled[0].get(STARTS)

    @starts.setter
    def starts(self, value):
        for scheduled in self._scheduled:
            scheduled.put(STARTS, value)

    def used(self):
        """As Scheduled.used, of all vCPUs together."""
        each = [scheduled.used() for scheduled in self._scheduled]
        return tuple([sum([used[i] for used in each]) for i in range(5)]) + (max([used[5] for used in each]),)

    def ticks(self):
        """(guest ticks, host ticks) so far, of all vCPUs together."""
        pairs = [scheduled.ticks() for scheduled in self._scheduled]
        return sum([guest for guest, _ in pairs]), sum([host for _, host in pairs])


@micropython.viper
def _take(words: ptr32, counts: ptr32, out: ptr32, seen: ptr32):
    """Copy the words of _COUNTS, as they have changed since the last time. Ticks go on; the others begin anew."""
    i = 0
    while i < 6:
        at = int(counts[i])
        value = int(words[at]) | int(words[at + 1]) << 32
        if 2 * i < int(_SEEN):
            before = int(seen[2 * i]) | int(seen[2 * i + 1]) << 32
            seen[2 * i] = value
            seen[2 * i + 1] = value >> 32
            value -= before
        else:
            words[at] = 0
            words[at + 1] = 0
        out[2 * i] = value
        out[2 * i + 1] = value >> 32
        i += 1


@micropython.viper
def _get(words, at: int) -> int:
    f = ptr32(words)
    return int(f[at]) | int(f[at + 1]) << 32


@micropython.viper
def _put(words, at: int, value: int):
    f = ptr32(words)
    f[at] = value
    f[at + 1] = value >> 32
