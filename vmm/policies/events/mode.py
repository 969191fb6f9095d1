"""Changes of the CPU's mode: real, protected, long."""

from micropython import const

from vmm import verdict
from vmm.loaders.state import GPRS
from vmm.policies.event import Event, Needs
from vmm.policies.filters import OneOf, check_change
from vmm.vtx import reasons
from vmm.vtx.vmcs_bits import CR_GPR, CR_GPR_SHIFT, CR_MOV_TO, CR_NUMBER, CR_TYPE
from vmm.vtx.x86 import CR0_PE, CR0_PG, EFER_LME

_LMSW = const(3 << 4)


def _mode(cr0, efer):
    """The mode by CR0.PE, CR0.PG and EFER.LME."""
    if not cr0 & CR0_PE:
        return "real"
    return "long" if cr0 & CR0_PG and efer & EFER_LME else "protected"


def written(vcpu):
    """The value of CR0 after a MOV to CR0 or LMSW; for any other access its present value."""
    q = vcpu.qualification
    if q & CR_NUMBER == 0 and q & CR_TYPE == CR_MOV_TO:
        return getattr(vcpu, GPRS[(q & CR_GPR) >> CR_GPR_SHIFT])
    if q & CR_TYPE == _LMSW:
        return vcpu.cr0 | q >> 16 & CR0_PE
    return vcpu.cr0


def change(vcpu):
    """(mode before, mode after) of the exit."""
    efer = vcpu.efer
    return _mode(vcpu.cr0, efer), _mode(written(vcpu), efer)


class Mode(Event):
    """The write of CR0 that changes the mode. Limit: loads of CS, which change between 64-bit and compatibility mode
    and between rings, do not exit."""

    name = "mode"
    text = (
        "a write of CR0 that changes between real, protected and long mode, before it is made. HANDLED: it is not "
        'made. No value. SDM Vol. 3A, "Mode Switching"'
    )
    reasons = (reasons.CONTROL_REGISTER_ACCESS,)
    filters = (
        OneOf("to", ("real", "protected", "long"), "the mode that follows"),
        OneOf("before", ("real", "protected", "long"), "the mode until then"),
    )

    def check(self, chosen):
        super().check(chosen)
        check_change(chosen)

    def accepts(self, chosen):
        to, before = chosen.get("to"), chosen.get("before")

        def accepts(vcpu):
            old, new = change(vcpu)
            return old != new and to in (None, new) and before in (None, old)

        return accepts

    def needs(self, chosen):
        return Needs(registers=(0,))

    def skip(self, vcpu):
        return verdict.ADVANCE


MODE = Mode()
