"""vmm/memory/linear.py: what the CPU refuses, and that nothing has happened then; vmm/memory/look.py."""

import pytest
from vcpus import CODE, DATA, UNUSABLE, Vcpu

from vmm import fault
from vmm.fault import Fault
from vmm.memory import look, paging
from vmm.memory.linear import Unbacked
from vmm.memory.paging import AC, USER, WRITE

ES, CS, SS, DS, FS, GS = range(6)
TABLES = 0x8000
AM, WP = 1 << 18, 1 << 16
SMEP, SMAP = 1 << 20, 1 << 21
RFLAGS_AC, RFLAGS_VM = 1 << 18, 1 << 17


def long_mode(rights=7, absent=()):
    """Pages 0-15 to themselves with these rights of the leaf entries."""
    vcpu = Vcpu()
    memory = vcpu.vm.memory
    vcpu.long_mode()
    vcpu.cr0 |= WP
    vcpu.cr3 = TABLES
    for level in range(3):
        memory.write_u64(TABLES + 0x1000 * level, TABLES + 0x1000 * (level + 1) | 7)
    for page in range(16):
        memory.write_u64(TABLES + 0x3000 + 8 * page, 0 if page in absent else page << 12 | rights)
    return vcpu


def ring3(vcpu):
    vcpu.set_segment("ss", 0x23, 0, 0xFFFFFFFF, DATA | 3 << 5)


def entry(vcpu, page):
    return vcpu.vm.memory.read_u64(TABLES + 0x3000 + 8 * page)


def refused(vcpu, segment, offset, size, access=0, alignment=0):
    """(vector, error code, and for #PF CR2) of an operand, or None."""
    try:
        vcpu.vm.linear.load(vcpu).operand(segment, offset, size, access, alignment)
    except Fault as refusal:
        if refusal.vector == fault.PF:
            return refusal.vector, refusal.error, refusal.gva
        return refusal.vector, refusal.error
    return None


def segment(name, limit=0xFFF, rights=DATA, base=0x1000, **changes):
    vcpu = Vcpu()
    vcpu.set_segment(name, 0x30, base, limit, rights)
    for key, value in changes.items():
        setattr(vcpu, key, value)
    return vcpu


@pytest.mark.parametrize("number, name, vector", [(ES, "es", 13), (SS, "ss", 12), (DS, "ds", 13), (GS, "gs", 13)])
def test_limits(number, name, vector):
    vcpu = segment(name)
    assert refused(vcpu, number, 0xFFC, 4) is None
    assert refused(vcpu, number, 0xFFD, 4) == (vector, 0)
    assert refused(vcpu, number, 0x1000, 1) == (vector, 0)
    vcpu = segment(name, 0xFFFFFFFF)
    assert refused(vcpu, number, 0xFFFFFFFC, 4) is None
    assert refused(vcpu, number, 0xFFFFFFFD, 4) == (vector, 0)  # it wraps beyond 4 GiB


def test_expand_down():
    for big, top in ((0xC097, 0xFFFFFFFF), (0x8097, 0xFFFF)):
        vcpu = segment("ds", 0xFFF, big)
        assert refused(vcpu, DS, 0xFFF, 1) == (13, 0)
        assert refused(vcpu, DS, 0x1000, 4, WRITE) is None
        assert refused(vcpu, DS, top - 3, 4) is None
        assert refused(vcpu, DS, top - 2, 4) == (13, 0)


@pytest.mark.parametrize(
    "rights, read, written",
    [
        (DATA, True, True),
        (DATA & ~2, True, False),
        (CODE, True, False),
        (CODE & ~2, False, False),
        (DATA | UNUSABLE, False, False),
    ],
)
def test_types_and_null(rights, read, written):
    for number, name, vector in ((ES, "es", 13), (SS, "ss", 12)):
        vcpu = segment(name, 0xFFFFFFFF, rights)
        assert (refused(vcpu, number, 0x10, 4) is None) == read
        assert (refused(vcpu, number, 0x10, 4, WRITE) is None) == written
        if not written:
            assert refused(vcpu, number, 0x10, 4, WRITE) == (vector, 0)


def test_code_may_be_written_in_real_and_virtual_8086_mode():
    assert refused(segment("cs", 0xFFFF, CODE), CS, 0, 2, WRITE) == (13, 0)
    assert refused(segment("cs", 0xFFFF, CODE, cr0=0x30), CS, 0, 2, WRITE) is None
    assert refused(segment("cs", 0xFFFF, CODE, rflags=2 | RFLAGS_VM), CS, 0, 2, WRITE) is None


def test_64_bit_segments_have_a_base_and_no_limit():
    vcpu = long_mode()
    vcpu.set_segment("ds", 0, 0x5555, 0, UNUSABLE)
    vcpu.set_segment("fs", 0, 0x2000, 0, UNUSABLE)
    memory = vcpu.vm.linear.load(vcpu)
    assert memory.operand(DS, 0x1234, 4, WRITE) == [(0x1234, 4)]
    assert memory.operand(FS, 0x1234, 4, WRITE) == [(0x3234, 4)]
    assert memory.operand(FS, -0x1000 & 2**64 - 1, 4, 0) == [(0x1000, 4)]


def test_canonical():
    vcpu = long_mode()
    for number, vector in ((DS, 13), (SS, 12)):
        assert refused(vcpu, number, 1 << 47, 1) == (vector, 0)
        assert refused(vcpu, number, (1 << 47) - 1, 2) == (vector, 0)
        assert refused(vcpu, number, 0xFFFF7FFFFFFFFFFF, 1) == (vector, 0)
    assert refused(vcpu, DS, (1 << 64) - 1, 2) == (14, 0, 2**64 - 1)  # wraps to 0: canonical, not mapped


def test_pages_are_checked_before_anything_is_written_or_marked():
    vcpu = long_mode(absent=(3,))
    assert refused(vcpu, DS, 0x2FFE, 4, WRITE) == (14, 2, 0x3000)
    assert entry(vcpu, 2) == 0x2007
    memory = vcpu.vm.linear.load(vcpu)
    with pytest.raises(Fault):
        memory.write(0x2FFE, b"abcd")
    assert vcpu.vm.memory.read(0x2FFE, 2) == b"\0\0"
    memory.put(memory.operand(DS, 0x4FFE, 4, WRITE), 0x44332211)
    assert vcpu.vm.memory.read(0x4FFE, 4) == b"\x11\x22\x33\x44"
    assert entry(vcpu, 4) == 0x4067 and entry(vcpu, 5) == 0x5067
    assert memory.get(memory.operand(DS, 0x4FFF, 2, 0)) == 0x3322
    assert memory.operand(DS, 0x5FFF, 0x1002, 0) == [(0x5FFF, 1), (0x6000, 0x1000), (0x7000, 1)]


def test_a_32_bit_operand_wraps():
    vcpu = segment("ds", 0xFFFFFFFF, DATA, 0xFFFFFFFE)
    assert vcpu.vm.linear.load(vcpu).operand(DS, 0, 4, WRITE) == [(0xFFFFFFFE, 2), (0, 2)]


def test_write_protection():
    vcpu = long_mode(5)  # read-only, user
    assert refused(vcpu, DS, 0x2000, 4, WRITE) == (14, 3, 0x2000)
    vcpu.cr0 &= ~WP
    assert refused(vcpu, DS, 0x2000, 4, WRITE) is None
    ring3(vcpu)
    assert refused(vcpu, DS, 0x2000, 4, WRITE) == (14, 7, 0x2000)


def test_user_and_supervisor():
    vcpu = long_mode(3)
    assert refused(vcpu, DS, 0x2000, 4) is None
    ring3(vcpu)
    assert refused(vcpu, DS, 0x2000, 4) == (14, 5, 0x2000)
    assert vcpu.vm.linear.load(vcpu).read(0x2000, 4) == bytes(4)  # the CPU's own access, to a TSS say


def test_smap_and_ac():
    """EFLAGS.AC lifts it for the instruction's operands and never for the CPU's own accesses."""
    vcpu = long_mode(7)
    vcpu.cr4 |= SMAP
    assert refused(vcpu, DS, 0x2000, 4) == (14, 1, 0x2000)
    assert refused(vcpu, DS, 0x2000, 4, WRITE) == (14, 3, 0x2000)
    vcpu.rflags |= RFLAGS_AC
    assert refused(vcpu, DS, 0x2000, 4, WRITE) is None
    memory = vcpu.vm.linear.load(vcpu)
    assert memory.explicit == AC
    with pytest.raises(Fault):
        memory.read(0x2000, 4)
    ring3(vcpu)
    assert refused(vcpu, DS, 0x2000, 4) is None and vcpu.vm.linear.explicit == USER | AC


def test_smep():
    vcpu = long_mode(7)
    vcpu.cr4 |= SMEP
    with pytest.raises(Fault) as refusal:
        vcpu.vm.linear.load(vcpu).gpa(0x2000, paging.FETCH)
    assert (refusal.value.vector, refusal.value.error) == (14, 0x11)


def test_protection_keys():
    vcpu = long_mode(7)
    vcpu.cr4 |= 1 << 22
    vcpu.vm.memory.write_u64(TABLES + 0x3010, 0x2007 | 3 << 59)
    vcpu.pkru = 2 << 6
    assert refused(vcpu, DS, 0x2000, 4) is None
    assert refused(vcpu, DS, 0x2000, 4, WRITE) == (14, 0x23, 0x2000)
    vcpu.pkru = 1 << 6
    assert refused(vcpu, DS, 0x2000, 4) == (14, 0x21, 0x2000)
    assert refused(vcpu, DS, 0x3000, 4) is None


def test_alignment():
    """#AC at CPL 3 with CR0.AM and EFLAGS.AC, for operands of 2, 4 and 8 bytes."""
    vcpu = long_mode()
    vcpu.rflags |= RFLAGS_AC
    vcpu.cr0 |= AM
    assert refused(vcpu, DS, 0x2001, 4) is None
    ring3(vcpu)
    for size in (2, 4, 8):
        assert refused(vcpu, DS, 0x2000 + size // 2, size) == (17, 0)
        assert refused(vcpu, DS, 0x2000 + size, size) is None
    assert refused(vcpu, DS, 0x2001, 1) is None and refused(vcpu, DS, 0x2001, 16) is None
    assert refused(vcpu, DS, 0x2002, 10, WRITE, 4) == (17, 0)
    vcpu.cr0 &= ~AM
    assert refused(vcpu, DS, 0x2001, 4) is None


def test_pdptes_of_the_vcpu():
    vcpu = Vcpu()
    memory = vcpu.vm.memory
    memory.write_u64(0x9000, 0)
    memory.write_u64(0xC000, 0xD003)
    memory.write_u64(0xD010, 0x2003)
    vcpu.cr0, vcpu.cr3, vcpu.cr4 = 0x80010031, 0x9000, 0x2020
    vcpu.pdptes = lambda: (0xC001, 0, 0, 0)
    assert vcpu.vm.linear.load(vcpu).operand(DS, 0x2345, 4, WRITE) == [(0x2345, 4)]
    assert refused(vcpu, DS, 0x40000000, 4) == (14, 0, 0x40000000)


def test_tables_outside_memory():
    vcpu = long_mode()
    vcpu.cr3 = 0x10000000
    with pytest.raises(Unbacked, match="outside guest memory"):
        vcpu.vm.linear.load(vcpu).read(0x2000, 1)


def test_a_look_says_why_not_and_leaves_no_trace():
    vcpu = long_mode(1, absent=(3,))
    ring3(vcpu)
    memory = vcpu.vm.memory
    memory.write_u64(TABLES + 0x3020, 0xFFFFFF001)
    memory.write_u64(TABLES + 0x3028, 1 << 51 | 1)
    space = look.space(vcpu)
    memory.write(0x2000, b"seen")
    assert space.read(0x2000, 4) == b"seen" and entry(vcpu, 2) == 0x2001
    space.write(0x1FFE, b"over")
    assert memory.read(0x1FFE, 6) == b"overen" and entry(vcpu, 1) == 0x1001
    for gva, why in (
        (0x2FFF, "0x3000 is not mapped"),
        (0x4000, "is gpa 0xffffff000, where there is no RAM"),
        (0x5000, "reserved bits"),
        (1 << 47, "not canonical"),
    ):
        with pytest.raises(ValueError, match=why):
            space.read(gva, 2)
    with pytest.raises(ValueError):
        space.write(0x2FFF, b"ab")
    assert memory.read_u8(0x2FFF) == 0  # all or nothing


def test_a_look_into_another_address_space():
    vcpu = long_mode()
    memory = vcpu.vm.memory
    memory.write(0xE000, memory.read(TABLES, 8))
    memory.write_u64(0xF000, 0xDEAD)
    assert look.space(vcpu, 0xE000).read(0xF000, 2) == b"\xad\xde"
    with pytest.raises(ValueError, match="outside guest memory"):
        look.space(vcpu, 0x7FFFF000).read(0xF000, 2)
