"""Exceptions of the guest."""

import micropython
from micropython import const
from vmx import bind, want

from vmm import verdict
from vmm.fault import DB, MC, NMI, PF
from vmm.memory.paging import FETCH
from vmm.policies import answers
from vmm.policies.event import Event, Needs
from vmm.policies.filters import Number
from vmm.policies.link import differs, equal
from vmm.vtx import events, reasons
from vmm.vtx.events import HARDWARE_EXCEPTION, PRIVILEGED_SOFTWARE_EXCEPTION, SOFTWARE_EXCEPTION, VALID
from vmm.vtx.frame import INTR_ERROR, INTR_INFO, LENGTH, VECTORING_INFO, WANT_CODE
from vmm.vtx.vmcs import GUEST_DR7
from vmm.vtx.vmcs_bits import PENDING_BS
from vmm.vtx.x86 import MASK32

_VECTOR = const(0xFF)
_TYPE_SHIFT = const(8)
_TYPE = const(7 << 8)
_BREAKPOINTS = const(4)
_SOFTWARE = (SOFTWARE_EXCEPTION, PRIVILEGED_SOFTWARE_EXCEPTION)


# Event.skip() takes 147,000 ticks, since it decodes the instruction in bytecode each time.
@micropython.viper
def _quick_skip(want, known, vcpu) -> int:
    f = ptr32(vcpu)
    info = int(f[INTR_INFO])
    kind = (info & _TYPE) >> _TYPE_SHIFT
    if kind == SOFTWARE_EXCEPTION or kind == PRIVILEGED_SOFTWARE_EXCEPTION:
        return 1
    vector = info & _VECTOR
    if kind != HARDWARE_EXCEPTION or vector == DB or int(f[VECTORING_INFO]) & VALID:
        return -1
    if vector == PF and f[INTR_ERROR] & FETCH:
        return -1
    want(vcpu, WANT_CODE)
    length = int(known(vcpu))
    if length == 0:
        return -1
    f[LENGTH] = length
    f[LENGTH + 1] = 0
    return 1


class Exception_(Event):
    name = "exception"
    text = 'an exception, before it is delivered. No value. SDM Vol. 3C, "Exceptions"'
    reasons = (reasons.EXCEPTION_OR_NMI,)
    filters = (Number("vector", 31, "not 2 and not 18, which are the host's"),)
    plain = False

    def quickly(self, vm):
        return self.quick, bind(_quick_skip, want, vm.mmio.any_length())

    def check(self, chosen):
        super().check(chosen)
        if chosen.get("vector") in (NMI, MC):
            raise ValueError("vector %d is the host's: no policy sees it" % chosen["vector"])

    def tests(self, chosen):
        if "vector" in chosen:
            return [equal(INTR_INFO, _VECTOR, chosen["vector"])]
        return [differs(INTR_INFO, _TYPE, events.NMI << _TYPE_SHIFT), differs(INTR_INFO, _VECTOR, MC)]

    def needs(self, chosen):
        return Needs(exceptions=1 << chosen["vector"] if "vector" in chosen else MASK32)

    def skip(self, vcpu):
        kind = vcpu.intr_info >> _TYPE_SHIFT & 7
        if kind in _SOFTWARE:
            return verdict.ADVANCE
        if vcpu.intr_info & _VECTOR == DB and _trap(vcpu):
            return verdict.RESUME
        return answers.drop(vcpu)

    def again(self, vcpu):
        answers.again(vcpu)

    def vectoring(self, vcpu):
        return vcpu.vectoring_info


def _trap(vcpu):
    """Whether this #DB follows its instruction: a step, or a data breakpoint."""
    hit = vcpu.qualification
    if hit & PENDING_BS:
        return True
    dr7 = vcpu.read(GUEST_DR7)
    for i in range(_BREAKPOINTS):
        if hit >> i & 1 and dr7 >> 16 + 4 * i & 3:
            return True
    return False


EXCEPTION = Exception_()
