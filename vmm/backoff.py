"""Backoff: a guest that resets itself soon after each start is held in reset, each time longer.

Loading is charged to the guest in any case (vmm/scheduling/accounting.py); the backoff keeps a guest that fails at
every start from loading all the time and from filling the journal. It ends when the guest has run for some seconds, or
when it is started from the prompt.
"""

import cpu
from micropython import const

from vmm import verdict
from vmm.scheduling import states
from vmm.vtx import reasons
from vmm.vtx.x86 import RFLAGS_TF

_UP_S = const(5)
_FREE = const(2)  # resets that are not delayed
_FIRST_MS = const(10)
_MOST_MS = const(10000)
_DOUBLINGS = const(10)  # from the first delay to beyond the longest

_RFLAGS_RESERVED = const(1 << 1)


class Backoff:
    """One VM's. held: its vCPU stands still in reset until a timer of its clock is due."""

    def __init__(self, vm):
        self._vm = vm
        self._timer = None  # made when first needed: each timer costs every deadline a little
        self._started = 0
        self._soon = 0  # resets soon after a start, in a row
        self._over = False
        self.held = False

    def started(self):
        """The guest has been loaded."""
        self._started = cpu.rdtsc()

    def forgive(self):
        self._soon = 0

    def release(self):
        """The guest is loaded again: end the hold."""
        if self.held:
            self.held = False
            self._timer.cancel()
            self._vm.exits.replace(reasons.PENDING, "backoff")

    def wait_ms(self):
        """The guest has reset itself: milliseconds for which it is held."""
        if cpu.rdtsc() - self._started > _UP_S * cpu.tsc_hz:
            self._soon = 0
        self._soon += 1
        if self._soon <= _FREE:
            return 0
        return min(_FIRST_MS << min(self._soon - _FREE - 1, _DOUBLINGS), _MOST_MS)

    def says(self):
        """Whether this reset is reported: those after the first hold are not."""
        return self._soon <= _FREE + 1

    def hold(self, ms):
        """Reset the devices and hold the vCPU for so long: the VM is halted, with a timer armed."""
        vm = self._vm
        for vcpu in vm.vcpus:
            vcpu.stepper.reset()
        vm.pc.reset()
        self._still()
        self._over = False
        self.held = True
        vm.exits.replace(reasons.PENDING, "backoff", lambda vcpu, below: self._pending)
        if self._timer is None:
            self._timer = vm.clock.timer(self._due)
        self._timer.arm(vm.clock.now() + cpu.tsc_hz * ms // 1000)
        for vcpu in vm.vcpus:
            vcpu.scheduled.state = states.WAIT_FOR_SIPI if vcpu.number else states.HALTED
        vm.why = "resets again and again: held"

    def _still(self):
        """Nothing wakes a vCPU (vmm/vtx/events.py, `wakes`)."""
        for vcpu in self._vm.vcpus:
            vcpu.rflags = _RFLAGS_RESERVED
            vcpu.event(0)
            vcpu.events.reset()

    def _due(self, now):
        vcpu = self._vm.vcpus[0]
        self._over = True
        vcpu.rflags = _RFLAGS_RESERVED | RFLAGS_TF  # `wakes` lets a HLT end that is stepped
        vcpu.pending = 1

    def _pending(self, vcpu):
        """Replaces the handler of slot PENDING until the time is over."""
        if self._over:
            return verdict.RESET
        self._still()
        return verdict.WAIT
