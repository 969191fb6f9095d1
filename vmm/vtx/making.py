"""Creates a virtual CPU: its frame and VMCS region, the controls and the host state in its VMCS.

Source: SDM Vol. 3C, "VM-Execution Control Fields", "Host-State Area", "Checks on VMX Controls and Host-State Area".
"""

import struct

import cpu
import uctypes
import vmx
from micropython import const

from vmm.fault import AC, DB, MC
from vmm.vtx import vmcs as v
from vmm.vtx.frame import MSR_SLOTS, MSRS, SIZE, XSAVE
from vmm.vtx.vcpu import CR0_OWNED, Vcpu, cr4_mask
from vmm.vtx.x86 import CR0_TS, IA32_EFER, IA32_PAT, MASK64, MXCSR, MXCSR_RESET, PAGE

EXCEPTIONS = const(1 << DB | 1 << AC | 1 << MC)  # #DB and #AC, since a guest could loop in their delivery forever
_PAUSE_LOOP_EXITING = const(1 << 10)
_SPIN_GAP = const(128)  # ticks between two PAUSEs of one loop
_SPIN_WINDOW = const(512)  # ticks after which a loop exits, since the vCPU that it waits for cannot run meanwhile


def make(vm, number, caps, take, exits, live_msrs):
    """Return a vmx.VCPU with an empty VMCS.

    number: of the vCPU in its VM, from 0. take(size) -> hpa of memory of the VM. live_msrs: the guest's MSRs that are
    swapped when another vCPU is loaded. ValueError if there are too many.
    """
    region = take(PAGE)
    struct.pack_into("<I", uctypes.bytearray_at(region, 4), 0, caps.revision)
    frame = take(SIZE)
    table = uctypes.bytearray_at(frame + MSRS, 16 * MSR_SLOTS)
    if len(live_msrs) > MSR_SLOTS:
        raise ValueError("%d MSRs for %d slots" % (len(live_msrs), MSR_SLOTS))
    for i, index in enumerate(live_msrs):
        struct.pack_into("<I", table, 16 * i, index)
    struct.pack_into("<I", uctypes.bytearray_at(frame + XSAVE, 32), MXCSR, MXCSR_RESET)
    dispatch = exits.new_table()
    vcpu = vmx.VCPU(frame, region, dispatch, Vcpu)
    vcpu.vm = vm
    vcpu.number = number
    vcpu.owns_cr0 = False
    vcpu.frame_hpa = frame
    vcpu.live_msrs = live_msrs
    vcpu.cr0_fixed = caps.cr0_fixed0
    vcpu.timer_shift = caps.misc.PREEMPTION_TIMER_SHIFT
    exits.attach(vcpu, dispatch)
    return vcpu


def prepare(vcpu, caps):
    """Write controls and host state into the VMCS; start() writes the guest state. vcpu: has vpid and msr_bitmap."""
    vcpu.clear()
    _controls(vcpu, caps)
    _host(vcpu, caps)


def _controls(vcpu, caps):
    vm = vcpu.vm
    used = caps.used
    write = vcpu.write
    write(v.PIN_BASED_VM_EXECUTION_CONTROLS, used["pin"].raw)
    write(v.PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, used["proc"].raw)
    spinning = caps.found["proc2"].raw & _PAUSE_LOOP_EXITING if len(vm.vpids) > 1 else 0
    write(v.SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, used["proc2"].raw | spinning)
    if spinning:
        write(v.PLE_GAP, _SPIN_GAP)
        write(v.PLE_WINDOW, _SPIN_WINDOW)
    write(v.PRIMARY_VM_EXIT_CONTROLS, used["exit"].raw)
    write(v.VM_ENTRY_CONTROLS, used["entry"].raw)
    write(v.VIRTUAL_PROCESSOR_IDENTIFIER, vcpu.vpid)
    write(v.EPT_POINTER, vm.ept.eptp)
    write(v.IO_BITMAP_A, vm.io_bitmap)
    write(v.IO_BITMAP_B, vm.io_bitmap + PAGE)
    write(v.MSR_BITMAPS, vcpu.msr_bitmap.hpa)
    write(v.EXCEPTION_BITMAP, EXCEPTIONS)
    write(v.PAGE_FAULT_ERROR_CODE_MASK, 0)
    write(v.PAGE_FAULT_ERROR_CODE_MATCH, 0)
    for field in (v.VM_EXIT_MSR_STORE_COUNT, v.VM_EXIT_MSR_LOAD_COUNT, v.VM_ENTRY_MSR_LOAD_COUNT, v.CR3_TARGET_COUNT):
        write(field, 0)
    write(v.CR0_GUEST_HOST_MASK, CR0_OWNED)
    write(v.CR4_GUEST_HOST_MASK, cr4_mask(vm))
    write(v.VMCS_LINK_POINTER, MASK64)
    if used["proc2"].ENABLE_XSAVES:
        write(v.XSS_EXITING_BITMAP, 0)


def _host(vcpu, caps):
    write = vcpu.write
    rip, cs, ds, tr, gdt, idt, tss = vmx.host_state()
    write(v.HOST_RIP, rip)
    write(v.HOST_CR0, cpu.cr(0) | CR0_TS)
    write(v.HOST_CR3, cpu.cr(3))
    write(v.HOST_CR4, cpu.cr(4))
    write(v.HOST_CS_SELECTOR, cs)
    for field in (v.HOST_SS_SELECTOR, v.HOST_DS_SELECTOR, v.HOST_ES_SELECTOR):
        write(field, ds)
    write(v.HOST_FS_SELECTOR, 0)
    write(v.HOST_GS_SELECTOR, 0)
    write(v.HOST_TR_SELECTOR, tr)
    write(v.HOST_TR_BASE, tss)
    write(v.HOST_GDTR_BASE, gdt)
    write(v.HOST_IDTR_BASE, idt)
    for field in (v.HOST_FS_BASE, v.HOST_GS_BASE, v.HOST_IA32_SYSENTER_CS, v.HOST_IA32_SYSENTER_ESP):
        write(field, 0)
    write(v.HOST_IA32_SYSENTER_EIP, 0)
    write(v.HOST_IA32_EFER, cpu.rdmsr(IA32_EFER))
    write(v.HOST_IA32_PAT, cpu.rdmsr(IA32_PAT))
    if caps.used["exit"].LOAD_IA32_PERF_GLOBAL_CTRL:
        write(v.HOST_IA32_PERF_GLOBAL_CTRL, 0)
