"""One instruction of a vCPU, with the pages that a policy watches opened for it.

Steps by the monitor trap flag (vmm/policies/monitortrap.py) where vmm/vtx/trial.py has verified it, else by RFLAGS.TF
(vmm/policies/trapflag.py), which every CPU has. The step ends with the trap after the instruction, or with an exit that
the instruction itself causes. Source: SDM Vol. 3C, "Monitor Trap Flag"; Vol. 3B, "Single-Step Exception Condition".
"""

import micropython
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.memory.ept import RWX
from vmm.vtx import reasons
from vmm.vtx.frame import STEPPED
from vmm.vtx.vmcs_bits import CONTROL_INTERRUPT_WINDOW, CONTROL_NMI_WINDOW

# Exits after which the instruction, or the event's delivery, is still to be done.
_PASSING_DELIVERY = (
    reasons.EXTERNAL_INTERRUPT, reasons.INTERRUPT_WINDOW, reasons.NMI_WINDOW, reasons.ATTENTION,
)  # fmt: skip
_PASSING = _PASSING_DELIVERY + (reasons.PREEMPTION_TIMER_EXPIRED,)


_WINDOWS = const(CONTROL_INTERRUPT_WINDOW | CONTROL_NMI_WINDOW)


class Diverted:
    """A vCPU whose exits go to one handler for a while; events for the guest wait. Base of Stepper and of
    vmm.debug.replay.Replay."""

    _held = False  # an event waits
    _alone = False  # the other vCPUs stand still

    def alone(self, vcpu):
        """The other vCPUs, where there are any, stand still until rejoin()."""
        self._alone = len(vcpu.vm.vcpus) > 1
        if self._alone:
            vcpu.vm.hold_others(vcpu, 1)

    def divert(self, vcpu, handler, delivery, violation=None):
        """Send exits to `handler` until rejoin(), all but those after which the instruction is still to be done.

        delivery: the preemption timer's go to `handler`, too. violation: another handler for EPT violations, if any.
        """
        instead = dict.fromkeys(_PASSING_DELIVERY if delivery else _PASSING)
        instead[reasons.PENDING] = self._hold
        if violation is not None:
            instead[reasons.EPT_VIOLATION] = violation
        vcpu.vm.exits.divert(vcpu, handler, instead)

    def _hold(self, vcpu):
        """Handler of slot PENDING: hold the event, which would be delivered between the instruction and its trap."""
        self._held = True
        vcpu.pending = 0
        vcpu.events.set_primary(0, _WINDOWS)
        return verdict.RESUME

    def rejoin(self, vcpu):
        """Restore the handlers of exits, and let the other vCPUs and held events go on."""
        vcpu.vm.exits.restore(vcpu)
        if self._alone:
            self._alone = False
            vcpu.vm.hold_others(vcpu, -1)
        if self._held:
            self._held = False
            vcpu.events.kick()


class Stepper(Diverted):
    """step(gpa, rights): let the next instruction reach the page at gpa; then close it again.

    Interrupts and NMIs for the guest are held until it is over.
    """

    def __init__(self, vcpu, ways):
        """ways: MonitorTrap, TrapFlag, or their like; the first that fits is used, and the last always fits."""
        self.vcpu = vcpu
        self.vm = vcpu.vm
        self._mark = bind(_mark, vcpu)
        self._ways = ways
        self._way = ways[-1]
        self.armed = False
        self._interrupts = self._interrupted  # one object: Exits keeps the table of the last diversion
        self._done = None

    def step(self, gpa=None, rights=RWX, done=None):
        """Let one instruction run; returns the verdict for the exit at hand. Other vCPUs stand still meanwhile: they
        would find the page open, or a page that stands in for a device's.

        done(completed) -> verdict: called once after it; completed: it ended without a fault or another exit.
        """
        vm = self.vm
        if not self.armed:
            self._way = self.way()
            instead = self._way.instead(self.vcpu)
            if instead is not None:
                return instead
        if vm.stops is not None:
            vm.stops.step(self.vcpu)
        if done is not None:
            self._done = done
        if gpa is not None:
            vm.rights.lend(gpa, rights)
        if not self.armed:
            self.armed = True
            self._mark(1)
            if gpa is not None or done is not None:
                self.alone(self.vcpu)
            self.divert(self.vcpu, self._interrupts, self._way.arm(self.vcpu), self.violation)
        else:
            self._way.again(self.vcpu)
        return verdict.RESUME

    @property
    def then(self):
        """The `done` of the step that is armed, or None."""
        return self._done

    def way(self):
        """The way in which the vCPU can be stepped now."""
        for way in self._ways:
            if way.fits(self.vcpu):
                return way
        return self._ways[-1]

    def reset(self, completed=False):
        """End the step: close the open pages. Returns done()'s verdict."""
        vm = self.vm
        if self.armed:
            self.armed = False
            self._mark(0)
            self._way.disarm(self.vcpu)
            self.rejoin(self.vcpu)
        vm.rights.restore()
        done, self._done = self._done, None
        return done(completed) if done is not None else verdict.RESUME

    def violation(self, vcpu):
        """Handler of EPT violations: an instruction that the monitor completes ends the step without a trap."""
        answer = self.vm.exits.handler(reasons.EPT_VIOLATION, vcpu)(vcpu)
        if answer & verdict.ADVANCE and self.armed and not self._way.traps_advance:
            answer |= self.reset(True)
        return answer

    def _interrupted(self, vcpu):
        """Handler of all other exits during a step: they end it."""
        ended = self._way.ended(vcpu)
        answer = self.reset(ended)
        if ended:
            return answer | (self._way.deliver_others(vcpu) or verdict.RESUME)
        return answer | self.vm.exits.handler(vcpu.reason, vcpu)(vcpu)


@micropython.viper
def _mark(vcpu, armed: int):
    """Set STEPPED, which the quick answer of MEMORY tests (vmm/policies/events/memory.py)."""
    ptr32(vcpu)[STEPPED] = armed
