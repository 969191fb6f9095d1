"""Exceptions and NMIs that exit: #DB, #AC, #MC and NMI always, others under a policy.

A guest could keep the CPU in an endless loop of delivering #DB or #AC; they are re-delivered. #MC and NMIs are the
host's and are handled there. Source: SDM Vol. 3C, "Exceptions", "Exit qualification for debug exceptions".
"""

import cpu
import micropython
from micropython import const

from vmm import verdict
from vmm.fault import DB, DF, MC, PF
from vmm.vtx import events
from vmm.vtx.events import ERROR_CODE, HARDWARE_EXCEPTION, NMI, SOFTWARE_EXCEPTION, TYPE_VECTOR, VALID
from vmm.vtx.frame import (
    DIRTY,
    DIRTY_ENTRY,
    DIRTY_RFLAGS,
    ENTRY_INFO,
    INTR_ERROR,
    INTR_INFO,
    LENGTH,
    RFLAGS,
    VECTORING_INFO,
)
from vmm.vtx.vmcs import GUEST_CR0, GUEST_DR7, GUEST_IA32_DEBUGCTL, GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_STI_MOV_SS
from vmm.vtx.x86 import CR0_PE, DEBUGCTL_BTF, DEBUGCTL_LBR, RFLAGS_RF

_GD = const(1 << 13)
DR6_BITS = const(0xE00F)  # B0-B3, BD, BS, BT
DR6_FIXED = const(0xFFFF0FF0)


# Under a policy on page faults each of them exits; in bytecode the delivery takes 8,000 ticks more.
@micropython.viper
def exit(vcpu) -> int:
    """Handler of exceptions and NMIs: inject the usual exceptions; _exit() for #DB, #MC, #DF, NMIs, nested events."""
    f = ptr32(vcpu)
    info = int(f[INTR_INFO])
    vector = info & 0xFF
    kind = (info >> 8) & 7
    if int(f[VECTORING_INFO]) & VALID or f[DIRTY] & DIRTY_ENTRY or vector == DB or vector == MC or vector == DF:
        return int(_exit(vcpu))
    length = 0
    if kind == SOFTWARE_EXCEPTION:
        length = int(f[LENGTH])
    elif kind != HARDWARE_EXCEPTION:
        return int(_exit(vcpu))
    elif info & ERROR_CODE and not int(vcpu.read(GUEST_CR0)) & CR0_PE:
        return int(_exit(vcpu))
    else:
        if vector == PF:
            vcpu.cr2 = vcpu.qualification
        f[RFLAGS] |= RFLAGS_RF  # so that a breakpoint on the instruction is not taken twice
        f[DIRTY] |= DIRTY_RFLAGS
    f[ENTRY_INFO] = info & (ERROR_CODE | TYPE_VECTOR) | VALID
    f[ENTRY_INFO + 2] = f[INTR_ERROR] if info & ERROR_CODE else 0
    f[ENTRY_INFO + 4] = length
    f[DIRTY] |= DIRTY_ENTRY
    return 0


def _exit(vcpu):
    """The slow path of exit(): any exception or NMI."""
    info = vcpu.intr_info
    vector = info & 0xFF
    if info >> 8 & 7 == NMI:
        cpu.take_nmi()
        vcpu.vm.monitor.machine_checks.look()
        return verdict.YIELD
    if vector == MC:
        return machine_check(vcpu)
    return deliver(vcpu)


def machine_check(vcpu):
    """Handler of a machine check while the guest ran or was being entered: stop the guest."""
    vcpu.vm.monitor.machine_checks.of_guest(vcpu)
    return verdict.STOP


def deliver(vcpu):
    """Deliver the exception that exited, with the side effects that the CPU omits at an exit."""
    info = vcpu.intr_info
    vector = info & 0xFF
    error = vcpu.intr_error
    kind = info >> 8 & 7
    if vector == DB:
        _unblock(vcpu)
        if kind != events.PRIVILEGED_SOFTWARE_EXCEPTION:
            debug_registers(vcpu, vcpu.qualification)
    if vector == PF:
        vcpu.cr2 = vcpu.qualification
    if vcpu.vectoring_info & events.VALID:
        return events.reflect(vcpu, vector, error, vcpu.vectoring_info)
    if kind in (events.SOFTWARE_EXCEPTION, events.PRIVILEGED_SOFTWARE_EXCEPTION):
        vcpu.event(events.VALID | kind << 8 | vector, 0, vcpu.length)
        return verdict.RESUME
    return events.reflect(vcpu, vector, error)


def _unblock(vcpu):
    """Clear blocking by STI and MOV SS, which the delivery of an exception ends.

    A single step over STI exits while blocking by STI is set, and VM entry would then require a pending debug exception
    with BS.
    """
    state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
    if state & BLOCKING_BY_STI_MOV_SS:
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_STI_MOV_SS)


def debug_registers(vcpu, qualification):
    """Carry out the side effects of #DB: set DR6, clear DR7.GD, DEBUGCTL.LBR and BTF."""
    debug = vcpu.debug()
    debug[4] = debug[4] & ~0xF | qualification & DR6_BITS | DR6_FIXED
    vcpu.write(GUEST_DR7, vcpu.read(GUEST_DR7) & ~_GD)
    vcpu.write(GUEST_IA32_DEBUGCTL, vcpu.read(GUEST_IA32_DEBUGCTL) & ~(DEBUGCTL_LBR | DEBUGCTL_BTF))
