"""Accesses to guest-physical memory: RAM, and devices."""

import micropython
from micropython import const
from vmx import bind

from vmm.memory.ept import R, W, X
from vmm.policies import answers
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Letters, Number
from vmm.policies.link import differs, within
from vmm.vtx import events, reasons
from vmm.vtx.frame import GPA, LENGTH, QUALIFICATION, STEPPED, VECTORING_INFO
from vmm.vtx.vmcs_bits import EPT_FETCH, EPT_LINEAR_VALID, EPT_TRANSLATED
from vmm.vtx.x86 import PAGE

_OPERAND = const(EPT_LINEAR_VALID | EPT_TRANSLATED)
_PAGES = const(1 << 14)  # most pages of one policy: each takes a little of the heap
KEYS = const(16)  # most pages with keys of their own; in larger ranges each access is tested
_ACCESS = Letters("access", {"r": R, "w": W, "x": X}, "letters of r, w and x, all by default")


@micropython.viper
def _skip(known, vcpu) -> int:
    f = ptr32(vcpu)
    if f[VECTORING_INFO] & events.VALID or f[STEPPED]:
        return -1
    length = int(known(vcpu))
    if length == 0:
        return -1
    f[LENGTH] = length
    f[LENGTH + 1] = 0
    return 1


class Memory(Instruction):
    name = "memory"
    text = (
        'an access to memory. Value(number) is what is read, or what is written instead. SDM Vol. 3C, "EPT Violations"'
    )
    reasons = (reasons.EPT_VIOLATION,)
    filters = (
        Number("gpa", (1 << 52) - 1, "the first byte", required=True),
        Number("length", 1 << 52, "bytes, a page by default", low=1),
        _ACCESS,
    )
    plain = False

    def quickly(self, vm):
        return vm.mmio.quick_answer, bind(_skip, vm.mmio.length)

    def check(self, chosen):
        super().check(chosen)
        pages = len(self._pages(chosen))
        if pages > _PAGES:
            raise ValueError("length=%#x: %d pages; a policy watches at most %d" % (chosen["length"], pages, _PAGES))

    def _pages(self, chosen):
        gpa = chosen["gpa"]
        return range(gpa >> 12, (gpa + chosen.get("length", PAGE) - 1 >> 12) + 1)

    def keys(self, chosen):
        pages = self._pages(chosen)
        return [page << 12 & 0xFFFFFFFF for page in pages] if len(pages) <= KEYS else None

    def tests(self, chosen):
        """Also for exits of a key, since the key lacks the bits of the gpa above 4 GiB."""
        rights = _ACCESS.bits(chosen.get("access", "rwx"))
        return [within(GPA, chosen["gpa"], chosen.get("length", PAGE)), differs(QUALIFICATION, rights)]

    def needs(self, chosen):
        return Needs(pages=self._pages(chosen), rights=_ACCESS.bits(chosen.get("access", "rwx")))

    def value(self, vcpu, value, handler):
        self.number(value)
        q = vcpu.qualification
        if q & EPT_FETCH:
            raise ValueError("no value for an instruction fetch: change the guest's code or RIP")
        if vcpu.vectoring_info & events.VALID or q & _OPERAND != _OPERAND:
            raise ValueError("no value for an access by the CPU itself (a descriptor, stack or paging structure)")
        answers.again(vcpu)
        return vcpu.vm.mmio.answer(vcpu, value)

    def skip(self, vcpu):
        vcpu.stepper.reset()  # a step over another of its operands ends here
        return answers.drop(vcpu)

    def again(self, vcpu):
        answers.again(vcpu)

    def vectoring(self, vcpu):
        return vcpu.vectoring_info


MEMORY = Memory()
