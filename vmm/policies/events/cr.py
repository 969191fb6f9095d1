"""MOV to and from control registers, CLTS and LMSW; a process switch is a MOV to CR3."""

import micropython

from vmm import verdict
from vmm.loaders.state import GPRS
from vmm.memory.paging import ADDRESS
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Number, OneOf
from vmm.policies.link import differs, equal, moved
from vmm.vtx import reasons
from vmm.vtx.frame import QUALIFICATION, WANT_MODE
from vmm.vtx.vmcs_bits import CR_GPR, CR_GPR_RSP, CR_GPR_SHIFT, CR_MOV_FROM, CR_MOV_TO, CR_NUMBER, CR_TYPE
from vmm.vtx.x86 import MASK64


@micropython.viper
def _quick(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    f = ptr32(vcpu)
    q = int(f[QUALIFICATION])
    kind = q & CR_TYPE
    if n[0] != 1 or q & CR_GPR == CR_GPR_RSP:
        return -1
    gpr = (q >> 7) & 30
    if kind == CR_MOV_FROM:
        f[gpr] = n[2]
        f[gpr + 1] = n[3]
        return 1
    if kind != CR_MOV_TO:
        return -1
    low = int(f[gpr])
    high = int(f[gpr + 1])
    f[gpr] = n[2]
    f[gpr + 1] = n[3]
    done = int(handler(vcpu))
    f[gpr] = low
    f[gpr + 1] = high
    return done


class Cr(Instruction):
    """CR0 and CR4 exit where the instruction changes a bit, and are read without an exit."""

    name = "cr"
    text = (
        "a MOV to CR0, CR3, CR4, CR8, or from CR3, CR8; CLTS and LMSW as writes of CR0. CR0 and CR4: only where a bit "
        "changes. Value(number) is what is read, or what is written instead. "
        'SDM Vol. 3C, "Exit Qualification for Control-Register Accesses"'
    )
    reasons = (reasons.CONTROL_REGISTER_ACCESS,)
    filters = (
        OneOf("number", (0, 3, 4, 8), "of the register"),
        OneOf("write", (True, False), "to it, or from it"),
        Number("cr3", MASK64, "a MOV to CR3 of these page tables, whatever the PCID: a process switch"),
    )
    quick = staticmethod(_quick)

    def check(self, chosen):
        super().check(chosen)
        number = self._number(chosen)
        if "cr3" in chosen and (number != 3 or not chosen.get("write", True)):
            raise ValueError("cr3= is what is written to CR3: number=3, write=True")
        if number in (0, 4) and not chosen.get("write", True):
            raise ValueError("a MOV from CR%d does not exit" % number)

    def _number(self, chosen):
        return chosen.get("number", 3 if "cr3" in chosen else None)

    def tests(self, chosen):
        if "cr3" in chosen:
            # Without PCID, flags, and bit 63, which keeps translations.
            return [moved(3, ADDRESS, chosen["cr3"] & ADDRESS)]
        mask = value = 0
        if "number" in chosen:
            mask, value = CR_NUMBER, chosen["number"]
        tests = []
        writes = chosen.get("write")
        if writes is False:
            mask, value = mask | CR_TYPE, value | CR_MOV_FROM
        elif writes and value:
            mask |= CR_TYPE  # MOV only: CLTS and LMSW write CR0
        elif writes:
            tests.append(differs(QUALIFICATION, CR_TYPE, CR_MOV_FROM))
        if mask:
            tests.append(equal(QUALIFICATION, mask, value))
        return tests

    def wants(self, chosen):
        """Words that the handler of MOV to CR3 reads: in the frame they cost less than its own VMREADs."""
        return ((reasons.CONTROL_REGISTER_ACCESS, WANT_MODE),)

    def needs(self, chosen):
        number = self._number(chosen)
        numbers = (0, 3, 4, 8) if number is None else (number,)
        ways = ("LOAD", "STORE")
        if "write" in chosen or "cr3" in chosen:
            ways = ("LOAD",) if chosen.get("write", True) else ("STORE",)
        return Needs(
            primary=tuple(["CR%d_%s_EXITING" % (n, way) for n in numbers if n in (3, 8) for way in ways]),
            registers=tuple([n for n in numbers if n in (0, 4) and "LOAD" in ways]),
        )

    def value(self, vcpu, value, handler):
        self.number(value)
        q = vcpu.qualification
        if q & CR_TYPE not in (CR_MOV_TO, CR_MOV_FROM):
            raise ValueError("no value for CLTS and LMSW: write the register, and answer HANDLED")
        name = GPRS[(q & CR_GPR) >> CR_GPR_SHIFT]
        before = getattr(vcpu, name)
        setattr(vcpu, name, value & MASK64)
        if q & CR_TYPE == CR_MOV_FROM:
            return verdict.ADVANCE
        try:
            return handler(vcpu)
        finally:
            setattr(vcpu, name, before)


CR = Cr()
