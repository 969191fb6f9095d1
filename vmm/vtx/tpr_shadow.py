"""TPR shadow without virtual-interrupt delivery: MOV to and from CR8 access the Lapic's TPR and do not exit.

The VMCS's virtual-APIC page is the Lapic's register file, so that both see one TPR. The CPU writes it without an exit:
PPR is computed anew where TPR differs from the one that PPR was computed from (lapic_registers.TPR_KNOWN). While TPR
holds an interrupt up, the TPR threshold is the class of that interrupt, and a MOV to CR8 that lets it through exits.
Accesses to the page itself and to x2APIC MSR 808H exit as without. Source: SDM Vol. 3C, "TPR Virtualization", "Checks
on VMX Controls".
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
        """TPR is 0. An entry fails where the threshold is above TPR's class."""
        self._lapic.set(TPR_LIMIT, 0)
        self._write(TPR_THRESHOLD, 0)

    # Twice for each interrupt that TPR holds up.
    @micropython.viper
    def update(self):
        """Set the threshold for what waits now."""
        r = ptr32(self._regs)
        limit = int(self._lapic.held_by_tpr())
        if int(r[TPR_LIMIT // 4]) != limit:
            r[TPR_LIMIT // 4] = limit
            self._write(TPR_THRESHOLD, limit)

    def halt(self):
        """Return the handler of HLT: PPR says what wakes the vCPU (vmm/vtx/events.py)."""
        return bind(_halt, uctypes.addressof(self._lapic.regs))


@micropython.viper
def _halt(page: int, vcpu) -> int:
    r = ptr32(page)
    if r[TPR // 4] != r[TPR_KNOWN // 4]:
        reprioritize(r)
    return WAIT | ADVANCE
