"""vmm/emulation/sites.py in code of 16 and 32 bits, without paging and with each kind of it."""

import struct

import pytest
import uctypes
from site_machine import CODE16, CODE32, CR3, LONG_MODE, PAE, PAGE, PSE, RIP_GVA, SLOW, Machine

from vmm.emulation import site_paging
from vmm.memory.paging import Walker
from vmm.vtx import frame as f
from vmm.vtx.vmcs import GUEST_DS_BASE, GUEST_PDPTE0


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


def in_32_bit(machine, text, rights=CODE32):
    """Code at 0x20 of linear page 0x5000000, which PAGE or its tables map."""
    machine.bits = 32 if rights == CODE32 else 16
    machine.put(f.CS_RIGHTS, rights)
    machine.place(text)
    machine.put(f.RIP, 0x5000020)


def no_paging(machine):
    machine.frame.paging.update({f.CR0: 0, f.CS_BASE: (PAGE - 0x5000000) & 0xFFFFFFFF})
    return PAGE + 0x20, None


def two_levels(machine):
    machine.frame.paging.update({f.CR4: 0, f.ENTRY_CONTROLS: 0})
    struct.pack_into("<I", machine.ram, CR3 + 4 * (0x5000000 >> 22), 0x3007)
    struct.pack_into("<I", machine.ram, 0x3000 + 4 * (0x5000000 >> 12 & 1023), PAGE | 7)
    return CR3 + 4 * (0x5000000 >> 22), 0x3000 + 4 * (0x5000000 >> 12 & 1023)


def three_levels(machine):
    machine.frame.paging.update({f.CR4: PAE, f.ENTRY_CONTROLS: 0})
    machine.frame.fields[GUEST_PDPTE0] = 0x3001
    struct.pack_into("<Q", machine.ram, 0x3000 + 8 * (0x5000000 >> 21), 0x4007)
    struct.pack_into("<Q", machine.ram, 0x4000 + 8 * (0x5000000 >> 12 & 511), PAGE | 7)
    return 0x3000 + 8 * (0x5000000 >> 21), 0x4000 + 8 * (0x5000000 >> 12 & 511)


def compatibility(machine):
    machine.frame.paging.update({f.CR4: PAE, f.ENTRY_CONTROLS: LONG_MODE})
    struct.pack_into("<Q", machine.ram, CR3, 0x12007)
    struct.pack_into("<Q", machine.ram, 0x12000, 0x3007)
    struct.pack_into("<Q", machine.ram, 0x3000 + 8 * (0x5000000 >> 21), 0x4007)
    struct.pack_into("<Q", machine.ram, 0x4000 + 8 * (0x5000000 >> 12 & 511), PAGE | 7)
    return CR3, 0x4000 + 8 * (0x5000000 >> 12 & 511)


MODES = [no_paging, two_levels, three_levels, compatibility]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "rights, text", [(CODE32, "mov ecx, [edi]"), (CODE16, "mov ecx, [bx]"), (CODE16, "or cx, [di]")]
)
def test_other_modes(machine, mode, rights, text):
    mode(machine)
    in_32_bit(machine, text, rights)
    for _ in range(3):
        machine.put(f.RCX, 0)
        assert machine.access() == 1
        assert machine.get(f.RCX) & 0xFFFF == 0xCDEF
    assert machine.kept == 1 and machine.slow == 0


@pytest.mark.parametrize("mode", [two_levels, three_levels, compatibility])
@pytest.mark.parametrize("which", [0, 1])
def test_other_modes_see_changed_tables(machine, mode, which):
    at = mode(machine)[which]
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    machine.ram[at] &= 0xFE
    assert machine.access() == SLOW


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", [{f.CR0: 0}, {f.CR4: PSE}, {f.CS_BASE: 0x1000}])
def test_other_modes_see_what_the_mode_is(machine, mode, change):
    """Where the same RIP leads somewhere else, nothing is executed by what was kept."""
    mode(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    kept = machine.kept
    before = dict(machine.frame.paging)
    machine.frame.paging.update(change)
    if machine.frame.paging != before and not (mode is no_paging and f.CS_BASE not in change):
        machine.access()
        assert machine.kept == kept + 1


def test_the_pdpte_is_the_registers(machine):
    three_levels(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    assert machine.access() == 1
    machine.frame.fields[GUEST_PDPTE0] = 0
    assert machine.access() == SLOW


def test_a_segment_that_does_not_begin_at_0(machine):
    """The operand's place in its page goes by the segment's base."""
    no_paging(machine)
    in_32_bit(machine, "mov ecx, [edi]")
    machine.put(f.GPA, 0xFEC00000)
    machine.put(f.RDI, 0x5000FFE)
    assert machine.access() == SLOW
    machine.frame.fields[GUEST_DS_BASE] = 2
    assert machine.access() == 1


@pytest.mark.parametrize("mode, levels", [(32, (22, 12)), (36, (21, 12)), (48, (39, 30, 21, 12))])
@pytest.mark.parametrize("large", [0, 1, 2, 3])
def test_as_the_walker_has_it(machine, mode, levels, large):
    """Large pages at each level, and where the tables end."""

    class Ram:
        def read_u32(self, gpa):
            return struct.unpack_from("<I", machine.ram, gpa)[0]

        def write_u8(self, gpa, value):
            machine.ram[gpa] = value

    if large >= len(levels):
        return
    shift = levels[large]
    linear = RIP_GVA + 0x123 if mode == 48 else 0x5034123
    form, width = ("<I", 1023) if mode == 32 else ("<Q", 511)
    table = CR3 if mode != 36 else 0x2000
    for level, at in enumerate(levels):
        entry = table + 0x1000 | 7 if level < large else 0xE7 if shift > 12 else PAGE | 7
        struct.pack_into(form, machine.ram, table + (linear >> at & width) * struct.calcsize(form), entry)
        table += 0x1000
    walker = Walker(Ram())
    cr4 = {32: PSE, 36: PAE, 48: PAE}[mode]
    walker.load(0x80000001, CR3, cr4, 0xD00 if mode == 48 else 0, [0x2001] * 4 if mode == 36 else None)
    want = walker.translate(linear, 0)
    site = bytearray(1024)
    table = 0x2000 if mode == 36 else CR3
    kind = site_paging.PAGING_32_PSE if mode == 32 else mode
    got = site_paging.walk(machine.sites.words, uctypes.addressof(site), table, linear, kind)
    assert got == (want if want >= 0 else -1)


# -- any page
