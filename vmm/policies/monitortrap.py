"""One instruction of a guest by the monitor trap flag, for vmm/policies/stepper.py.

The exit follows the instruction, or the delivery of the event that the entry injects. Flags, stack and RIP stay the
guest's own, whatever the instruction does with RFLAGS; exceptions exit meanwhile, so that a fault is not taken for the
end of the instruction. Where the CPU delivers interrupts by itself, blocking by STI holds them for the one instruction;
VM entry does not allow that with RFLAGS.TF set, and vmm/policies/trapflag.py steps then. Source: SDM Vol. 3C, "Monitor
Trap Flag", "Checks on Guest Non-Register State".
"""

from vmm import verdict
from vmm.vtx import reasons
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_STI, BLOCKING_BY_STI_MOV_SS, CONTROL_MONITOR_TRAP_FLAG
from vmm.vtx.x86 import RFLAGS_IF, RFLAGS_TF


class MonitorTrap:
    """A step: arm() before the entry, disarm() at the next exit that is not an interruption."""

    traps_advance = False  # an instruction that the monitor completes causes no trap

    def __init__(self, vcpu):
        self.vm = vcpu.vm
        self._delivery = False
        self._blocks = False  # blocking by STI was set by the step

    def fits(self, vcpu):
        """Whether the vCPU can be stepped so."""
        return not vcpu.apicv or vcpu.rflags & (RFLAGS_TF | RFLAGS_IF) != RFLAGS_TF | RFLAGS_IF

    def instead(self, vcpu):
        """None: every instruction can be stepped."""

    def arm(self, vcpu):
        """Let one instruction run, or the delivery of the event that waits to be injected.

        Returns whether the preemption timer ends the step: never here.
        """
        self._delivery = bool(vcpu.injecting())
        vcpu.events.set_primary(CONTROL_MONITOR_TRAP_FLAG)
        if not self._delivery:
            self.vm.arming.all_exceptions(vcpu)
            state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
            self._blocks = bool(vcpu.apicv and vcpu.rflags & RFLAGS_IF and not state & BLOCKING_BY_STI_MOV_SS)
            if self._blocks:
                vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_STI)
        return False

    def disarm(self, vcpu):
        """Undo arm()."""
        vcpu.events.set_primary(0, CONTROL_MONITOR_TRAP_FLAG & ~self.vm.arming.own_primary(vcpu))
        if self._delivery:
            return
        self.vm.arming.own_exceptions(vcpu)
        if self._blocks and not self.ended(vcpu):
            state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_STI)

    def again(self, vcpu):
        """Prepare the instruction, which exited before its end, to run again: nothing to do here."""

    def ended(self, vcpu):
        """Whether this exit is the trap after the instruction."""
        return vcpu.reason == reasons.MONITOR_TRAP_FLAG

    def deliver_others(self, vcpu):
        """Pass the trap on to the other users of the monitor trap flag, if there are any; returns a verdict.

        The guest's own traps are in the pending debug exceptions.
        """
        if self.vm.arming.primary_bits & CONTROL_MONITOR_TRAP_FLAG:
            return self.vm.exits.handler(reasons.MONITOR_TRAP_FLAG, vcpu)(vcpu)
        return verdict.RESUME
