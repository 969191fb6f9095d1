"""MOV to and from debug registers."""

from micropython import const

from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number, OneOf
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import QUALIFICATION

# Of the exit qualification (vmm/handlers/control.py, DrQualification).
_NUMBER = const(7)
_FROM = const(1 << 4)


class MovDr(Event):
    name = "mov_dr"
    text = 'a MOV to or from a debug register. No value. SDM Vol. 3C, "Exit Qualification for MOV DR"'
    reasons = (reasons.MOV_DR,)
    filters = (
        Number("number", 7, "of the register, as the instruction encodes it: with CR4.DE clear, 4 is DR6"),
        OneOf("write", (True, False), "to it, or from it"),
    )

    def tests(self, chosen):
        mask = value = 0
        if "number" in chosen:
            mask, value = _NUMBER, chosen["number"]
        if "write" in chosen:
            mask, value = mask | _FROM, value | (0 if chosen["write"] else _FROM)
        return [equal(QUALIFICATION, mask, value)] if mask else []

    def needs(self, chosen):
        return Needs(primary=("MOV_DR_EXITING",))


MOV_DR = MovDr()
