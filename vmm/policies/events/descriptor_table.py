"""LGDT, LIDT, LLDT, LTR and their stores."""

from micropython import const

from vmm.policies.event import Event, Needs
from vmm.policies.filters import OneOf
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import INSTR_INFO, REASON

_BASIC = const(0xFFFF)  # of the exit reason
_IDENTITY_SHIFT = const(28)  # of the instruction information
_IDENTITY = const(3 << 28)
_LOAD = const(2 << 28)
_INSTRUCTIONS = {
    reasons.GDTR_OR_IDTR_ACCESS: ("sgdt", "sidt", "lgdt", "lidt"),
    reasons.LDTR_OR_TR_ACCESS: ("sldt", "str", "lldt", "ltr"),
}


class DescriptorTable(Event):
    name = "descriptor_table"
    text = (
        "an instruction LGDT, LIDT, LLDT, LTR, SGDT, SIDT, SLDT or STR. No value. "
        'SDM Vol. 3C, "Descriptor-table exiting", "Instruction Information"'
    )
    reasons = tuple(sorted(_INSTRUCTIONS))
    filters = (
        OneOf("instruction", _INSTRUCTIONS[reasons[0]] + _INSTRUCTIONS[reasons[1]], "its name"),
        OneOf("write", (True, False), "the register is loaded, or stored"),
    )

    def check(self, chosen):
        super().check(chosen)
        name = chosen.get("instruction")
        if name and "write" in chosen and chosen["write"] != name.startswith("l"):
            raise ValueError("instruction=%r is a %s: write=%r never matches" % (
                name, "load" if name.startswith("l") else "store", chosen["write"],
            ))  # fmt: skip

    def tests(self, chosen):
        tests = []
        for reason, names in _INSTRUCTIONS.items():
            if chosen.get("instruction") in names:
                number = names.index(chosen["instruction"])
                tests = [equal(REASON, _BASIC, reason), equal(INSTR_INFO, _IDENTITY, number << _IDENTITY_SHIFT)]
        if "write" in chosen:
            tests.append(equal(INSTR_INFO, _LOAD, _LOAD if chosen["write"] else 0))
        return tests

    def needs(self, chosen):
        return Needs(secondary=("DESCRIPTOR_TABLE_EXITING",))


DESCRIPTOR_TABLE = DescriptorTable()
