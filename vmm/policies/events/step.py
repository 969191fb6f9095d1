"""Single steps: each instruction of the guest."""

from vmm.emulation import length
from vmm.policies.event import Event, Needs
from vmm.vtx import reasons


class Step(Event):
    """The instruction at RIP is the next one. An instruction that exits by itself is followed by no step."""

    name = "step"
    text = (
        "an instruction has ended, or an interrupt or exception was delivered; RIP is the next one's. HANDLED skips "
        'that. No value. SDM Vol. 3C, "Monitor Trap Flag"'
    )
    reasons = (reasons.MONITOR_TRAP_FLAG,)
    plain = False
    repeats = False

    def needs(self, chosen):
        return Needs(primary=("MONITOR_TRAP_FLAG",))

    def skip(self, vcpu):
        return length.skip(vcpu)


STEP = Step()
