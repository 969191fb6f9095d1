"""A small machine for tests of task switches: GDT at 1000H, TSSs from 2000H, paging off at first.

Every switch that ends in the new task must leave a state that VM entry takes: guest_checks says so.
"""

import struct

from vcpus import GPRS, TSS, Vcpu

from vmm import verdict
from vmm.handlers import task_switch
from vmm.vtx import guest_checks
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT

CALL, IRET, JMP, GATE = 0, 1, 2, 3
GDT, OLD_TSS, NEW_TSS, TSS16_A, TSS16_B, LDT = 0x1000, 0x2000, 0x2100, 0x2200, 0x2300, 0x2400
CODE, STACK, OLD, NEW, OLD16, NEW16, LDTR = 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38
CODE3, DATA3, ABSENT, CONFORMING = 0x43, 0x4B, 0x50, 0x58
READ_ONLY, EXECUTE_ONLY, CODE_ABSENT, STACK16 = 0x60, 0x68, 0x70, 0x78
NT, VM, RF = 1 << 14, 1 << 17, 1 << 16
VALID, WITH_ERROR = 1 << 31, 1 << 11
EXTERNAL, NMI, EXCEPTION, INT_N, INT1, INT3 = 0, 2, 3, 4, 5, 6


def descriptor(base, limit, rights):
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | base & 0xFF000000 | limit & 0xF0000 | rights << 8
    return struct.pack("<II", low, high)


GDT_BYTES = b"".join(
    (
        bytes(8),
        descriptor(0, 0xFFFFF, 0xC09B),
        descriptor(0, 0xFFFFF, 0xC093),
        descriptor(OLD_TSS, 0x67, 0x8B),
        descriptor(NEW_TSS, 0x67, 0x89),
        descriptor(TSS16_A, 0x2B, 0x83),
        descriptor(TSS16_B, 0x2B, 0x81),
        descriptor(LDT, 0x0F, 0x82),
        descriptor(0, 0xFFFFF, 0xC0FA),
        descriptor(0, 0xFFFFF, 0xC0F2),
        descriptor(0, 0xFFFFF, 0xC013),
        descriptor(0, 0xFFFFF, 0xC09F),
        descriptor(0, 0xFFFFF, 0xC091),
        descriptor(0, 0xFFFFF, 0xC099),
        descriptor(0, 0xFFFFF, 0xC01B),
        descriptor(0, 0xFFFF, 0x0093),
    )
)


def machine(old16=False):
    """A vCPU in the old task, ready to switch to a new task at 4000H."""
    vcpu = Vcpu()
    memory = vcpu.vm.memory
    memory.write(GDT, GDT_BYTES)
    memory.write(LDT, descriptor(0, 0xFFFFF, 0xC093) + descriptor(0x100, 0xFF, 0x4093))
    vcpu.write(GUEST_GDTR_BASE, GDT)
    vcpu.write(GUEST_GDTR_LIMIT, len(GDT_BYTES) - 1)
    if old16:
        vcpu.set_segment("tr", OLD16, TSS16_A, 0x2B, 0x83)
    else:
        vcpu.set_segment("tr", OLD, OLD_TSS, 0x67, TSS)
    for i in range(8):
        setattr(vcpu, GPRS[i], 0x11110000 + i)
    vcpu.rip, vcpu.rflags, vcpu.dr7, vcpu.length = 0x1234, 0x46, 0x755, 7
    new_task(vcpu)
    struct.pack_into("<7H", memory.view(TSS16_B, 44), 0x0E, 0x4000, 0x3202, 1, 2, 3, 4, 0x8000)
    struct.pack_into("<8H", memory.view(TSS16_B, 44), 0x1C, 6, 7, 8, STACK, CODE, STACK16, STACK, LDTR)
    return vcpu


def new_task(vcpu, cr3=0, flags=0x202, es=0, cs=CODE, ss=STACK, ds=STACK, fs=0, gs=0, ldtr=0, trap=0):
    image = vcpu.vm.memory.view(NEW_TSS, 104)
    struct.pack_into("<11I", image, 0x1C, cr3, 0x4000, flags, 1, 2, 3, 4, 0x8000, 6, 7, 8)
    struct.pack_into("<8I", image, 0x48, es, cs, ss, ds, fs, gs, ldtr, trap)


def switch(vcpu, source, selector=NEW, kind=None, vector=0, error=None):
    vcpu.qualification = source << 30 | selector
    if kind is not None:
        vcpu.vectoring_info = VALID | kind << 8 | vector | (0 if error is None else WITH_ERROR)
        vcpu.vectoring_error = error or 0
    return task_switch.exit(vcpu)


def switched(vcpu, *args, **kwargs):
    assert switch(vcpu, *args, **kwargs) == verdict.RESUME, vcpu.vm.reports
    assert vcpu.injected == (0, 0, 0), vcpu.injected
    entered(vcpu)


def entered(vcpu):
    vcpu.write(0x4016, vcpu.injected[0])
    assert guest_checks.faults(vcpu) == ["no check of vmm/vtx/guest_checks.py fails"], guest_checks.faults(vcpu)


def injected(vcpu):
    info, error, _ = vcpu.injected
    assert info & VALID and info >> 8 & 7 == 3
    return info & 0xFF, error


def rights(vcpu, selector):
    return vcpu.vm.memory.read_u8(GDT + (selector & 0xFFF8) + 5)


def words(vcpu, gpa, layout):
    return struct.unpack(layout, vcpu.vm.memory.read(gpa, struct.calcsize(layout)))
