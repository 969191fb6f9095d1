"""Single steps: each instruction of the guest, each branch that is taken, each change of ring."""

from vmm.emulation import branches, length
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number, OneOf, check_change
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


class Ring(Step):
    """Found by stepping: no exit tells of it."""

    name = "ring"
    text = (
        "the privilege level has changed, by whatever instruction, interrupt or exception; RIP is the first "
        'instruction\'s there. HANDLED skips that. No value. SDM Vol. 3A, "Privilege Levels"'
    )
    filters = (Number("to", 3, "the level that follows"), Number("before", 3, "the level until then"))

    def check(self, chosen):
        super().check(chosen)
        check_change(chosen)

    def accepts(self, chosen):
        to, before = chosen.get("to"), chosen.get("before")
        levels = {}  # vCPU's number: its level at the last step

        def accepts(vcpu):
            new = vcpu.cpl
            old = levels.get(vcpu.number, new)
            levels[vcpu.number] = new
            return old != new and to in (None, new) and before in (None, old)

        return accepts


STEP = Step()
RING = Ring()
