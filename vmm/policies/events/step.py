"""Single steps: each instruction of the guest."""

from vmm.emulation import branches, length
from vmm.policies.event import Event, Needs
from vmm.policies.filters import OneOf
from vmm.vtx import reasons


class Step(Event):
    """The instruction at RIP is the next one. An instruction that exits by itself is followed by no step."""

    name = "step"
    text = (
        "an instruction has ended, or an interrupt or exception was delivered; RIP is the next one's. HANDLED skips "
        'that. No value. SDM Vol. 3C, "Monitor Trap Flag"'
    )
    reasons = (reasons.MONITOR_TRAP_FLAG,)
    filters = (OneOf("branches", (True,), "the instruction was a branch that was taken: RIP is where it leads"),)
    plain = False
    repeats = False

    def needs(self, chosen):
        return Needs(primary=("MONITOR_TRAP_FLAG",))

    def accepts(self, chosen):
        if "branches" not in chosen:
            return None
        behind = {}  # vCPU's number: behind the branch that it executes next; without, that is none

        def accepts(vcpu):
            before = behind.pop(vcpu.number, None)
            after = branches.behind(vcpu)
            if after is not None:
                behind[vcpu.number] = after
            return before is not None and vcpu.rip != before

        return accepts

    def skip(self, vcpu):
        return length.skip(vcpu)


STEP = Step()
