"""Parts that the answers of EXCEPTION and MEMORY share.

Both exits can occur during the delivery of another event, and before the instruction or after it.
"""

from micropython import const

from vmm import verdict
from vmm.emulation import length
from vmm.vtx import events, reasons
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_NMI

_NMI_UNBLOCKED = const(1 << 12)


def again(vcpu):
    """Before the instruction runs again: deliver the event again whose delivery the exit interrupted.

    For EPT violations and exceptions, whose frames hold the vectoring words.
    """
    if vcpu.vectoring_info & events.VALID:
        events.requeue(vcpu)
        return
    info = vcpu.intr_info if vcpu.reason == reasons.EXCEPTION_OR_NMI else vcpu.qualification
    if info & _NMI_UNBLOCKED:  # the faulting IRET has unblocked NMIs, and will again
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI)


def drop(vcpu):
    """Skip the instruction whose exception or access is dropped, or the event whose delivery caused it."""
    if vcpu.vectoring_info & events.VALID:
        return verdict.RESUME
    return length.skip(vcpu)
