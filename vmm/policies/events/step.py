"""Single steps: each instruction of the guest, each branch that is taken, each change of ring."""

from array import array

import micropython
import uctypes
from micropython import const

from vmm.emulation import branches, length
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number, OneOf, check_change
from vmm.vtx import reasons
from vmm.vtx.frame import SS_RIGHTS, WANT_SS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DPL_SHIFT

_LEVELS = const(4)
# Words of RING: bits of the levels that match, then of each vCPU the level at its last step
_TO = const(0)
_BEFORE = const(1)
_LAST = const(2)


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
        behind = {}  # {vCPU's number: RIP of the instruction behind the branch that it executes next}

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
    """Found by stepping: no exit reports it."""

    name = "ring"
    text = (
        "the privilege level has changed, by whatever instruction, interrupt or exception; RIP is the first "
        'instruction\'s there. HANDLED skips that. No value. SDM Vol. 3A, "Privilege Levels"'
    )
    filters = (Number("to", 3, "the level that follows"), Number("before", 3, "the level until then"))
    levels = True
    _words = array("I", (0, 0))

    def check(self, chosen):
        super().check(chosen)
        check_change(chosen)
        if "cpl" in chosen and chosen.get("to", chosen["cpl"]) != chosen["cpl"]:
            raise ValueError("cpl=%d and to=%d: both are the level that follows" % (chosen["cpl"], chosen["to"]))

    def of(self, vm, chosen):
        placed = type(self)()
        if "cpl" in chosen:
            chosen = dict(chosen, to=chosen["cpl"])
        wanted = [1 << chosen[name] if name in chosen else (1 << _LEVELS) - 1 for name in ("to", "before")]
        placed._words = array("I", wanted + [_LEVELS] * len(vm.vcpus))
        return placed

    def accepts(self, chosen):
        return None

    def gate(self, vm):
        return _changed, uctypes.addressof(self._words)

    def wants(self, chosen):
        return ((reasons.MONITOR_TRAP_FLAG, WANT_SS_RIGHTS),)


@micropython.viper
def _changed(words: int, link, below, vcpu) -> int:
    """Go on to `link` where the level has changed since the vCPU's last step, between levels that the filters name."""
    w = ptr32(words)
    new = int(ptr32(vcpu)[SS_RIGHTS]) >> RIGHTS_DPL_SHIFT & 3
    at = int(vcpu.number) + _LAST
    old = int(w[at])
    if old == new:
        return int(below(vcpu))
    w[at] = new
    if old == _LEVELS or not int(w[_TO]) >> new & 1 or not int(w[_BEFORE]) >> old & 1:
        return int(below(vcpu))
    return int(link(vcpu))


STEP = Step()
RING = Ring()
