"""TPR shadow without virtual-interrupt delivery: MOV to and from CR8 access the Lapic's TPR without an exit.

The VMCS's virtual-APIC page is the Lapic's register file, so that there is one TPR. Since the CPU writes it without an
exit, PPR is computed again when TPR differs from the value that PPR was computed from (lapic_registers.TPR_KNOWN).
While TPR holds an interrupt up, the TPR threshold is the class of that interrupt, and a MOV to CR8 that admits it
exits. Accesses to the page itself and to x2APIC MSR 808H exit. Source: SDM Vol. 3C, "TPR Virtualization", "Checks on
VMX Controls".
"""

import micropython
import uctypes
from vmx import bind

from vmm.devices.lapic_registers import TPR, TPR_KNOWN, TPR_LIMIT, TPR_SHADOW
from vmm.devices.lapic_vectors import reprioritize
from vmm.verdict import ADVANCE, WAIT
from vmm.vtx.vmcs import TPR_THRESHOLD, VIRTUAL_APIC_ADDRESS


class TprShadow:
    """Keeps the TPR threshold of one vCPU in step with its Lapic."""

    def __init__(self, lapic):
        self._lapic = lapic
        self._regs = lapic.regs
        lapic.set(TPR_SHADOW, 1)

    def attach(self, vcpu, page):
        """page: hpa of the Lapic's registers."""
        self._write = vcpu.write
        self._write(VIRTUAL_APIC_ADDRESS, page)
        self.reset()

    def reset(self):
        """TPR is 0: clear the threshold, since an entry fails if it is above TPR's class."""
        self._lapic.set(TPR_LIMIT, 0)
        self._write(TPR_THRESHOLD, 0)

    # Called twice for each interrupt that TPR holds up.
    @micropython.viper
    def update(self):
        """Set the threshold by the interrupt that TPR holds up now."""
        r = ptr32(self._regs)
        limit = int(self._lapic.held_by_tpr())
        if int(r[TPR_LIMIT // 4]) != limit:
            r[TPR_LIMIT // 4] = limit
            self._write(TPR_THRESHOLD, limit)

    def halt(self):
        """Return the handler of HLT, which brings PPR up to date: wakes() of vmm/vtx/events.py uses it."""
        return bind(_halt, uctypes.addressof(self._lapic.regs))


@micropython.viper
def _halt(page: int, vcpu) -> int:
    r = ptr32(page)
    if r[TPR // 4] != r[TPR_KNOWN // 4]:
        reprioritize(r)
    return WAIT | ADVANCE
