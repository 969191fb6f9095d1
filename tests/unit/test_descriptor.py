"""vmm/handlers/descriptor.py: SGDT and company, in 16, 32 and 64-bit code."""

import struct

from vcpus import TSS, UNUSABLE, Vcpu

from vmm import fault, verdict
from vmm.handlers import descriptor
from vmm.vtx.reasons import GDTR_OR_IDTR_ACCESS, LDTR_OR_TR_ACCESS
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT, GUEST_IDTR_BASE, GUEST_IDTR_LIMIT

GDT = 0x1000
SGDT, SIDT, LGDT, LIDT = 0, 1, 2, 3
SLDT, STR, LLDT, LTR = 0, 1, 2, 3
ES, CS, SS, DS, FS = 0, 1, 2, 3, 4
RAX, RCX, RBX, RBP, RSI = 0, 1, 3, 5, 6
LONG_TABLES = 0x8000


def machine(long_mode=False):
    vcpu = Vcpu()
    memory = vcpu.vm.memory
    memory.write(GDT, struct.pack("<QQQQ", 0, 0, 0x0000820034000FFF, 0x0000890056000067))
    memory.write(GDT + 0x20, struct.pack("<QQQ", 0x0000090056000067, 0x00008200340000FF, 0))
    vcpu.write(GUEST_GDTR_BASE, GDT)
    vcpu.write(GUEST_GDTR_LIMIT, 0x37)
    vcpu.write(GUEST_IDTR_BASE, 0x12345678)
    vcpu.write(GUEST_IDTR_LIMIT, 0x7FF)
    vcpu.length = 4
    if long_mode:
        vcpu.long_mode()
        vcpu.cr3 = LONG_TABLES
        for level in range(3):
            memory.write_u64(LONG_TABLES + 0x1000 * level, LONG_TABLES + 0x1000 * (level + 1) | 7)
        for page in range(16):
            memory.write_u64(LONG_TABLES + 0x3000 + 8 * page, page << 12 | 7)
    return vcpu


def table(vcpu, identity, displacement=0, size=1, segment=DS, base=None, index=None, scale=0, operand_32=1):
    vcpu.reason = GDTR_OR_IDTR_ACCESS
    vcpu.qualification = displacement
    vcpu.instr_info = identity << 28 | size << 7 | segment << 15 | scale | operand_32 << 11
    vcpu.instr_info |= 1 << 27 if base is None else base << 23
    vcpu.instr_info |= 1 << 22 if index is None else index << 18
    return descriptor.table_access(vcpu)


def selector(vcpu, identity, register=RAX, gva=None):
    vcpu.reason = LDTR_OR_TR_ACCESS
    vcpu.qualification = gva or 0
    vcpu.instr_info = identity << 28 | 1 << 27 | 1 << 22 | 1 << 7 | DS << 15
    if gva is None:
        vcpu.instr_info |= 1 << 10 | register << 3
    return descriptor.table_access(vcpu)


def injected(vcpu):
    info, error, _ = vcpu.injected
    assert info >> 31 and info >> 8 & 7 == 3
    return info & 0xFF, error


def test_stores():
    vcpu = machine()
    vcpu.rbx, vcpu.rsi = 0x4000, 0x10
    assert table(vcpu, SIDT, 4, base=RBX, index=RSI, scale=3) == verdict.ADVANCE
    assert vcpu.vm.memory.read(0x4084, 7) == struct.pack("<HIB", 0x7FF, 0x12345678, 0)
    assert table(vcpu, SGDT, 0x4100) == verdict.ADVANCE
    assert vcpu.vm.memory.read(0x4100, 6) == struct.pack("<HI", 0x37, GDT)


def test_loads():
    vcpu = machine()
    vcpu.vm.memory.write(0x4000, struct.pack("<HI", 0x1FF, 0xFEDCBA98))
    assert table(vcpu, LGDT, 0x4000) == verdict.ADVANCE
    assert (vcpu.read(GUEST_GDTR_LIMIT), vcpu.read(GUEST_GDTR_BASE)) == (0x1FF, 0xFEDCBA98)
    assert table(vcpu, LIDT, 0x4000, operand_32=0) == verdict.ADVANCE
    assert (vcpu.read(GUEST_IDTR_LIMIT), vcpu.read(GUEST_IDTR_BASE)) == (0x1FF, 0xDCBA98)


def test_16_bit_addresses_wrap_and_add_the_segment_base():
    vcpu = machine()
    vcpu.set_segment("cs", 0, 0, 0xFFFF, 0x9B)
    vcpu.set_segment("ss", 0x300, 0x3000, 0xFFFF, 0x93)
    vcpu.rbp, vcpu.rsi = 0xFFF0, 0x0120
    vcpu.vm.memory.write(0x3110, struct.pack("<HI", 0x27, 0x1000))
    assert table(vcpu, LGDT, 0, size=0, segment=SS, base=RBP, index=RSI) == verdict.ADVANCE
    assert vcpu.read(GUEST_GDTR_LIMIT) == 0x27


def test_segment_checks():
    for segment, change, vector in (
        (DS, (0x10, 0, 0x4004, 0x4093), fault.GP),  # beyond the limit
        (SS, (0x10, 0, 0x4004, 0x4093), fault.SS),
        (DS, (0x10, 0, 0xFFFFFFFF, 0xC091), fault.GP),  # read-only
        (ES, (0, 0, 0, UNUSABLE), fault.GP),
        (SS, (0x10, 0, 0x4000, 0xC097), fault.SS),  # expand-down
        (CS, (0x08, 0, 0xFFFFFFFF, 0xC09B), fault.GP),  # code is never written
    ):
        vcpu = machine()
        vcpu.set_segment(("es", "cs", "ss", "ds")[segment], *change)
        assert table(vcpu, SGDT, 0x4000, segment=segment) == verdict.RESUME
        assert injected(vcpu) == (vector, 0), (segment, change)
    vcpu = machine()
    vcpu.set_segment("ss", 0x10, 0, 0x3FFF, 0xC097)
    assert table(vcpu, SGDT, 0x4000, segment=SS) == verdict.ADVANCE


def test_page_fault():
    vcpu = machine(True)
    assert table(vcpu, SGDT, 0x10FFC, size=2) == verdict.RESUME
    assert injected(vcpu) == (fault.PF, 2) and vcpu.cr2 == 0x10FFC


def test_64_bit():
    vcpu = machine(True)
    vcpu.vm.memory.write(0x4000, struct.pack("<HQ", 0x37, 0xFFFFFFFF80001000))
    vcpu.set_segment("ds", 0x10, 0x9999, 0, UNUSABLE)
    vcpu.set_segment("fs", 0x10, 0x1000, 0, UNUSABLE)
    vcpu.rax = 0xFFFFFFFFFFFFFFFF
    assert table(vcpu, LGDT, 0x4001, size=2, base=RAX, operand_32=0) == verdict.ADVANCE
    assert vcpu.read(GUEST_GDTR_BASE) == 0xFFFFFFFF80001000
    assert table(vcpu, SGDT, 0x4000, size=2, segment=FS) == verdict.ADVANCE
    assert vcpu.vm.memory.read(0x5000, 10) == vcpu.vm.memory.read(0x4000, 10)
    vcpu.vm.memory.write_u64(0x4002, 1 << 47)
    assert table(vcpu, LIDT, 0x4000, size=2) == verdict.RESUME
    assert injected(vcpu) == (fault.GP, 0)
    vcpu = machine(True)
    assert table(vcpu, LIDT, 1 << 47, size=2, segment=SS) == verdict.RESUME
    assert injected(vcpu) == (fault.SS, 0)


def test_sldt_and_str():
    for code, long_mode, want in (
        (b"\x0f\x00\xc8", False, 0x28),
        (b"\x66\x0f\x00\xc8", False, 0xAAAABBBBCCCC0028),
        (b"\x2e\x66\x0f\x00\xc8", True, 0xAAAABBBBCCCC0028),
        (b"\x66\x48\x0f\x00\xc8", True, 0x28),
    ):
        vcpu = machine(long_mode)
        vcpu.set_segment("tr", 0x28, 0, 0x67, TSS)
        vcpu.rip, vcpu.length, vcpu.rax = 0x5000, len(code), 0xAAAABBBBCCCCDDDD
        vcpu.vm.memory.write(0x5000, code)
        assert selector(vcpu, STR) == verdict.ADVANCE
        assert vcpu.rax == want, code
    vcpu = machine()
    vcpu.set_segment("ldtr", 0x10, 0, 0, 0x82)
    vcpu.vm.memory.write(0x4000, b"\xff\xff\xff")
    assert selector(vcpu, SLDT, gva=0x4000) == verdict.ADVANCE
    assert vcpu.vm.memory.read(0x4000, 3) == b"\x10\x00\xff"


def test_lldt_and_ltr():
    vcpu = machine()
    vcpu.rcx = 0x10
    assert selector(vcpu, LLDT, RCX) == verdict.ADVANCE
    assert vcpu.segment("ldtr") == (0x10, 0x3400, 0xFFF, 0x82)
    vcpu.vm.memory.write_u16(0x4000, 0x18)
    assert selector(vcpu, LTR, gva=0x4000) == verdict.ADVANCE
    assert vcpu.segment("tr") == (0x18, 0x5600, 0x67, TSS)
    assert vcpu.vm.memory.read_u8(GDT + 0x1D) == 0x8B
    vcpu.rcx = 3
    assert selector(vcpu, LLDT, RCX) == verdict.ADVANCE
    assert vcpu.segment("ldtr") == (3, 0, 0, UNUSABLE)


def test_bad_selectors():
    for identity, value, vector, error in (
        (LTR, 0, fault.GP, 0),
        (LTR, 0x1C, fault.GP, 0x1C),  # in the LDT
        (LTR, 0x38, fault.GP, 0x38),  # beyond the GDT
        (LTR, 0x13, fault.GP, 0x10),  # an LDT
        (LTR, 0x20, fault.NP, 0x20),
        (LLDT, 0x18, fault.GP, 0x18),
    ):
        vcpu = machine()
        vcpu.rax = value
        assert selector(vcpu, identity) == verdict.RESUME
        assert injected(vcpu) == (vector, error), (identity, value)


def test_16_byte_descriptors():
    for value, base, upper, want in (
        (0x28, 0x7F, 0, None),
        (0x28, 0xFFFFFF, 0, (fault.GP, 0x28)),  # not canonical
        (0x28, 0, 1 << 9, (fault.GP, 0x28)),  # the second half has a type
        (0x30, 0, 0, (fault.GP, 0x30)),  # and is beyond the limit
    ):
        vcpu = machine(True)
        vcpu.vm.memory.write(GDT + 0x30, struct.pack("<II", base, upper))
        vcpu.rax = value
        assert selector(vcpu, LLDT) == (verdict.RESUME if want else verdict.ADVANCE)
        if want:
            assert injected(vcpu) == want
        else:
            assert vcpu.segment("ldtr") == (0x28, 0x7F00003400, 0xFF, 0x82)
