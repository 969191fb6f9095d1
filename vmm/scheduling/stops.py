"""Stops that a guest's clock does not show: vm.hide_stops.

    vms['linux'].hide_stops = True

While the guest is paused, by a breakpoint, a step, gdb or pause(), and in exits that are handled
for a watcher (policies, hidden breakpoints, watched pages, steps), its clock stands still. All time sources of the
guest count from that clock (vmm/scheduling/clock.py): the TSCs and the local APIC timers of all vCPUs, 8254, HPET,
power management timer, MC146818. So they agree, and no deadline comes nearer.

A stop begins with the exit, or with the pause. STOPPED, the same in the frames of all vCPUs, has its host TSC, at which
now() stands. The first entry of one of them ends it: the shim moves the offsets of all by the time that is gone
(port/vcpu_enter.c), and by UNSEEN, what an exit and an entry take beside that. After an exit's handler the offsets are
moved, too, so that the scheduler finds timers due by the guest's clock. Where no entry follows, as at HLT, the clock
goes on.

Limits: other exits take their time, and so does the host's interrupt at an entry. The guest's calendar falls behind.
Source: SDM Vol. 3C, "Time-Stamp Counter Offset", "Changes to Instruction Behavior in VMX Non-Root Operation".
"""

import cpu
import micropython
from micropython import const
from vmx import bind

from vmm.scheduling.states import HOLD, PAUSED, RUNNING, RUNS, STILL
from vmm.scheduling.states import STOPPED as ENDED
from vmm.verdict import HOST, PAUSE, SPIN, STOP, WAIT, YIELD
from vmm.vtx.frame import EXIT_TSC, SLICE_END, STATE, STOPPED, UNSEEN
from vmm.vtx.reasons import ATTENTION
from vmm.vtx.standstill import move, now, since, stop

_STATES = const(HOLD - 1)
_STANDS = const(PAUSE | STOP)
_ENDS = const(0x7FFFFFF8 & ~(HOST | SPIN) | WAIT)


class Stops:
    """The hidden stops of one guest: vm.stops."""

    def __init__(self, vm):
        self._vm = vm
        self._frame = vm.vcpus[0].frame_hpa
        self._unseen = vm.monitor.unseen

    def open(self):
        """Hide stops from now on."""
        vm = self._vm
        vm.stops = self
        for vcpu in vm.vcpus:
            vcpu.scheduled.put(UNSEEN, self._unseen)
            vcpu.clock.show(bind(now, vcpu.frame_hpa, cpu.rdtsc))
        self._conceal(conceal)
        vm.exits.replace(ATTENTION, "hide_stops", lambda _, below: bind(_attends, cpu.rdtsc, move, below))
        if vm.state in (PAUSED, ENDED):
            self.begin()

    def close(self):
        """Show stops again."""
        self.end()
        del self._vm.stops
        self._vm.exits.replace(ATTENTION, "hide_stops")
        self._conceal(None)
        for vcpu in self._vm.vcpus:
            vcpu.clock.show()

    def _conceal(self, make):
        self._vm.exits.conceal(make)
        hidden = self._vm._hidden
        if hidden is not None and hidden.quick is not None:
            hidden.quick.fill()

    def begin(self):
        """The guest stands still from now on, if it does not yet."""
        if not since(self._frame):
            stop(self._frame, cpu.rdtsc())

    def step(self, vcpu):
        """An exit of this vCPU belongs to a watcher."""
        if not since(self._frame):
            stop(self._frame, vcpu.scheduled.get(EXIT_TSC) or cpu.rdtsc())

    def go_on(self):
        """The guest may be entered: then the stop ends, or now where nothing of it runs."""
        if since(self._frame):
            runs = any([vcpu.scheduled.state == RUNNING for vcpu in self._vm.vcpus])
            move(self._frame, cpu.rdtsc(), int(runs))

    def end(self):
        """Its clock runs."""
        if since(self._frame):
            move(self._frame, cpu.rdtsc(), 0)

    def spend(self, ticks):
        """The current stop shows so many ticks."""
        if since(self._frame):
            stop(self._frame, since(self._frame) + ticks)


def conceal(handler):
    """Return a handler whose exit does not take the guest's time."""
    return bind(_concealed, cpu.rdtsc, stop, move, handler)


@micropython.viper
def _concealed(rdtsc, begin, move, handler, vcpu) -> int:
    """A handler that is called outside of an exit of the vCPU, which waits or runs later, ends its stop itself."""
    f = ptr32(vcpu)
    own = f[EXIT_TSC] | f[EXIT_TSC + 1]
    if f[STOPPED] | f[STOPPED + 1] == 0:
        begin(int(f), int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32 if own else int(rdtsc()))
    answer = int(handler(vcpu))
    if f[STOPPED] | f[STOPPED + 1]:
        at = int(rdtsc())
        state = int(f[STATE]) & _STATES
        stays = 0
        if state == STILL or answer & _STANDS:
            stays = 1
        elif own and state == RUNS and answer & _ENDS == 0:
            stays = 1
            end = int(f[SLICE_END]) | int(f[SLICE_END + 1]) << 32
            if end and at >= end:
                answer |= YIELD  # an entry would come back at once, and show the way from there to the next turn
        move(int(f), at, stays)
    return answer


@micropython.viper
def _attends(rdtsc, move, handler, vcpu) -> int:
    """The host's interrupt keeps the vCPU from its entry: a stop goes on to the next one."""
    f = ptr32(vcpu)
    answer = int(handler(vcpu))
    if f[STOPPED] | f[STOPPED + 1]:
        move(int(f), int(rdtsc()), 1)
    return answer
