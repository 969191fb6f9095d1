"""Parts that the answers of EXCEPTION and MEMORY share.

Both exits can occur during the delivery of another event, and before the instruction or after it.
"""

from vmm import verdict
from vmm.emulation import length
from vmm.vtx import events, reasons
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_NMI


def again(vcpu):
    """Prepare the instruction to run again: requeue the event whose delivery the exit interrupted.

    For EPT violations and exceptions only, of which the frame holds the IDT-vectoring words.
    """
    if vcpu.vectoring_info & events.VALID:
        events.requeue(vcpu)
        return
    info = vcpu.intr_info if vcpu.reason == reasons.EXCEPTION_OR_NMI else vcpu.qualification
    if info & events.NMI_BLOCKED:  # the faulting IRET has unblocked NMIs, and will again
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI)


def drop(vcpu):
    """Skip the instruction whose exception or access is dropped, or the event whose delivery caused it."""
    if vcpu.vectoring_info & events.VALID:
        return verdict.RESUME
    return length.skip(vcpu)
