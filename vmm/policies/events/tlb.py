"""INVLPG and INVPCID: one control makes both exit; each event has its own exit reason."""

from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import QUALIFICATION
from vmm.vtx.x86 import MASK64


class Invlpg(Event):
    name = "invlpg"
    text = 'an instruction INVLPG. vcpu.qualification is the gva. No value. SDM Vol. 2A, "INVLPG"'
    reasons = (reasons.INVLPG,)
    filters = (Number("gva", MASK64, "the instruction's operand"),)

    def tests(self, chosen):
        return [equal(QUALIFICATION, MASK64, chosen["gva"])] if "gva" in chosen else []

    def needs(self, chosen):
        return Needs(primary=("INVLPG_EXITING",))


class Invpcid(Event):
    name = "invpcid"
    text = 'an instruction INVPCID. No value. SDM Vol. 2A, "INVPCID"; Vol. 3C, "Enable INVPCID"'
    reasons = (reasons.INVPCID,)

    def needs(self, chosen):
        return Needs(primary=("INVLPG_EXITING",), secondary=("ENABLE_INVPCID",))


INVLPG = Invlpg()
INVPCID = Invpcid()
