"""What answers share that are not about an instruction's end: exceptions and EPT violations.

Both can come in the middle of the delivery of another event, and before the instruction or after it.
"""

from micropython import const

from vmm import verdict
from vmm.emulation import length
from vmm.vtx import events, reasons
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_NMI

_NMI_UNBLOCKED = const(1 << 12)


def again(vcpu):
    """Before the instruction runs again: what the exit interrupted has to be delivered again.

    For EPT violations and exceptions, whose frames hold the vectoring words.
    """
    if vcpu.vectoring_info & events.VALID:
        events.requeue(vcpu)
        return
    info = vcpu.intr_info if vcpu.reason & 0xFFFF == reasons.EXCEPTION_OR_NMI else vcpu.qualification
    if info & _NMI_UNBLOCKED:  # IRET that unblocked NMIs faulted: it will unblock them again
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI)


def drop(vcpu):
    """Past an instruction whose exception or access is dropped, or without the event whose delivery met it."""
    if vcpu.vectoring_info & events.VALID:
        return verdict.RESUME
    return length.skip(vcpu)
