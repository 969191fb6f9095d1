"""vmm/memory/paging.py against a second, declarative model of the SDM's paging chapters."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import Memory

from vmm.memory import paging
from vmm.memory.look import walk
from vmm.memory.paging import AC, FETCH, NOT_CANONICAL, PEEK, UNBACKED, USER, WRITE, Walker

PG, WP, PE = 1 << 31, 1 << 16, 1
PSE, PAE, LA57, SMEP, SMAP = 1 << 4, 1 << 5, 1 << 12, 1 << 20, 1 << 21
LME_LMA, NXE = 1 << 8 | 1 << 10, 1 << 11
NX = 1 << 63
MAXPHYADDR = 40

# mode: (index widths from the top, entry size)
SHAPES = {32: ((10, 10), 4), 36: ((2, 9, 9), 8), 48: ((9,) * 4, 8), 57: ((9,) * 5, 8)}
TABLES = 0x10000
MEMORY = Memory(1 << 20)


def controls(mode, extra4=0, wp=True, nxe=True):
    cr0 = PE | PG | (WP if wp else 0)
    cr4 = extra4 | (PAE if mode > 32 else 0) | (LA57 if mode == 57 else 0)
    efer = (LME_LMA if mode > 36 else 0) | (NXE if nxe else 0)
    return cr0, cr4, efer


def lay(mode, gva, entries):
    """Writes one path of `entries` for `gva`; tables follow each other. Returns entry gpas."""
    widths, size = SHAPES[mode]
    shift = 12 + sum(widths)
    gpas = []
    for level, entry in enumerate(entries):
        shift -= widths[level]
        index = gva >> shift & ((1 << widths[level]) - 1)
        gpas.append(TABLES + 0x1000 * level + index * size)
        (MEMORY.write_u64 if size == 8 else MEMORY.write_u32)(gpas[-1], entry)
    return gpas


def model(mode, gva, entries, access, cr0, cr4, efer):
    """('gpa', value) or ('fault', error code), straight from the prose."""
    widths, size = SHAPES[mode]
    nxe = efer & NXE and mode > 32
    code = access & (WRITE | USER)
    if access & FETCH and (nxe or cr4 & SMEP):
        code |= FETCH
    shift = 12 + sum(widths)
    path = []
    for level, entry in enumerate(entries):
        shift -= widths[level]
        if not entry & 1:
            return "fault", code
        pdpte = mode == 36 and level == 0
        if size == 8:
            bad = entry >> MAXPHYADDR & ((1 << (52 - MAXPHYADDR)) - 1)
            bad |= entry & NX if not nxe else 0
            if mode == 36:
                bad |= entry >> 52 & 0x7FF
            if bad:
                return "fault", code | 9
        if not pdpte:
            path.append(entry)
        large = entry & 0x80 and shift > 12 and not pdpte and (mode > 32 or cr4 & PSE)
        if large and mode > 32 and (shift > 30 or entry & ((1 << shift) - (1 << 13))):
            return "fault", code | 9
        if large and mode == 32 and entry & 1 << 21:
            return "fault", code | 9
        if large or shift == 12:
            break
    user_page = all(e & 4 for e in path)
    writable = all(e & 2 for e in path)
    never_execute = size == 8 and any(e & NX for e in path)
    user = access & USER
    ok = not (access & FETCH and never_execute)
    ok &= not (user and not user_page)
    ok &= not (access & WRITE and not writable and (user or cr0 & WP))
    ok &= not (access & FETCH and not user and user_page and cr4 & SMEP)
    ok &= not (not access & FETCH and not user and user_page and cr4 & SMAP and not access & AC)
    if not ok:
        return "fault", code | 1
    offset = gva & ((1 << shift) - 1)
    if size == 8:
        return "gpa", entry & ((1 << 52) - 1) & ~((1 << max(shift, 12)) - 1) | offset
    if shift == 22:
        return "gpa", (entry >> 13 & 0xFF) << 32 | entry & 0xFFC00000 | offset
    return "gpa", entry & 0xFFFFF000 | offset


FLAGS = st.builds(
    lambda base, drop, more: (base & ~drop) | more,
    st.just(0x07),
    st.sampled_from([0, 0, 0, 0, 1, 2, 4]),
    st.sampled_from([0, 0, 0, 0x20, 0x40, 0x18, 0x100]),
)
HIGH = st.sampled_from([0, 0, 0, NX, 1 << 51, 1 << 41, 1 << 58])
LEAF = st.sampled_from([0, 0x5000, 0x80000000, 0x3FC0000000, 1 << 13, 1 << 21, 1 << 20, 0xC0000000])


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(list(SHAPES)),
    st.integers(0, 2**57 - 1),
    st.lists(st.tuples(FLAGS, HIGH), min_size=5, max_size=5),
    st.integers(0, 4),
    LEAF,
    st.sampled_from([0, WRITE, USER, USER | WRITE, FETCH, FETCH | USER, AC, AC | WRITE]),
    st.sampled_from([0, SMEP, SMAP, SMEP | SMAP]),
    st.booleans(),
    st.booleans(),
)
@example(48, 0x1234567, [(7, 0)] * 5, 4, 0x5000, USER, 0, True, True)
def test_against_the_model(mode, gva, words, large_at, leaf, access, extra4, wp, nxe):
    widths, size = SHAPES[mode]
    gva &= (1 << (12 + sum(widths))) - 1
    if mode > 36 and gva >> (mode - 1):
        gva |= (1 << 64) - (1 << mode)
    entries = []
    for level in range(len(widths)):
        flags, high = words[level]
        last = level == len(widths) - 1
        entry = (leaf if last or level == large_at else TABLES + 0x1000 * (level + 1)) | flags
        if level == large_at and not last:
            entry = entry & ~0xFFF | flags | 0x80
        entries.append((entry | high) if size == 8 else entry & 0xFFFFFFFF)
    if mode == 36 and large_at == 0:  # PAE's first level has no large pages
        entries[0] = TABLES + 0x1000 | entries[0] & 0xF7F
    cr0, cr4, efer = controls(mode, extra4 | (PSE if mode == 32 else 0), wp, nxe)
    gpas = lay(mode, gva, entries)
    walker = Walker(MEMORY, MAXPHYADDR)
    walker.load(cr0, TABLES, cr4, efer)
    before = [MEMORY.read(g, size) for g in gpas]
    kind, value = model(mode, gva, entries, access, cr0, cr4, efer)
    got = walker.translate(gva, access)
    assert got == (value if kind == "gpa" else ~value)
    if mode >= 48 and nxe:  # the short way for those who look, which knows RAM only
        gpa = walker.translate(gva, PEEK)
        ram = gpa >= 0 and MEMORY.has(gpa & ~0xFFF, 0x1000)
        assert walk(MEMORY.table, TABLES, 39 if mode == 48 else 48, gva, 0) == (gpa if ram else -1)
    signed = gva - (1 << 64) if gva >> 63 else gva
    assert walker.translate(signed, access) == got
    used = 0
    for level, gpa in enumerate(gpas):
        now = int.from_bytes(MEMORY.read(gpa, size), "little")
        was = int.from_bytes(before[level], "little")
        if kind == "fault" or used:
            assert now == was
            continue
        used = level == len(gpas) - 1 or (was & 0x80 and not (mode == 36 and level == 0))
        want = was if mode == 36 and level == 0 else was | 0x20
        if used and access & WRITE:
            want |= 0x40
        assert now == want


def test_peek_sees_through_rights_and_sets_nothing():
    entries = [0x11001, 0x12001, 0x13001, 0x5001]
    gpas = lay(48, 0x1234, entries)
    walker = Walker(MEMORY)
    cr0, cr4, efer = controls(48, SMEP | SMAP)
    walker.load(cr0, TABLES, cr4, efer)
    assert walker.translate(0x1234, PEEK) == 0x5234
    assert walker.translate(0x1234, USER) == ~(USER | 1)
    assert [MEMORY.read_u64(g) for g in gpas] == entries


def test_without_paging_addresses_wrap_at_4_gib():
    walker = Walker(MEMORY)
    assert walker.translate(0x1_0000_1234, WRITE) == 0x1234


def test_not_canonical_and_unbacked():
    walker = Walker(MEMORY)
    cr0, cr4, efer = controls(48)
    walker.load(cr0, 0xFFFF_F000, cr4, efer)
    assert walker.translate(1 << 47, 0) == NOT_CANONICAL
    assert walker.translate(-(1 << 47) - 1, 0) == NOT_CANONICAL
    assert walker.translate(-1, 0) == UNBACKED
    walker.load(*controls(57)[:1], 0xFFFF_F000, *controls(57)[1:])
    assert walker.translate(1 << 47, 0) == UNBACKED
    assert walker.translate(1 << 56, 0) == NOT_CANONICAL


def test_1_gib_pages_can_be_absent():
    lay(48, 0, [0x11007, 0x40000087])
    cr0, cr4, efer = controls(48)
    for page_1g, want in ((True, 0x40000000 | 0x123456), (False, ~9)):
        walker = Walker(MEMORY, MAXPHYADDR, page_1g)
        walker.load(cr0, TABLES, cr4, efer)
        assert walker.translate(0x123456, 0) == want


class Keys:
    """Of a vCPU all that the walker asks for while it walks."""

    def __init__(self, pkru):
        self.pkru = pkru


@pytest.mark.parametrize("supervisor_page", [False, True])
@pytest.mark.parametrize("wp", [False, True])
@pytest.mark.parametrize("access", [0, WRITE, USER, USER | WRITE, FETCH, FETCH | USER])
@pytest.mark.parametrize("denied", [0, 1, 2, 3])
def test_protection_keys(denied, access, wp, supervisor_page):
    """SDM Vol. 3A, "Determination of Access Rights": AD for data accesses, WD for user ones and, with WP, all."""
    gpas = lay(48, 0x1234, [0x11007, 0x12007, 0x13007, 0x5003 if supervisor_page else 0x5007])
    MEMORY.write_u64(gpas[3], MEMORY.read_u64(gpas[3]) | 9 << 59)
    cr0, cr4, efer = controls(48, 1 << 22, wp)
    walker = Walker(MEMORY)
    refused = supervisor_page and bool(access & USER)
    keyed = not supervisor_page and not access & FETCH
    keyed = keyed and bool(denied & 1 or (denied & 2 and access & WRITE and (access & USER or wp)))
    want = ~(access & (WRITE | USER | FETCH) | 1 | (0x20 if keyed else 0)) if refused or keyed else 0x5234
    for pkru, got in ((denied << 18, want), (3 << 16 | 3 << 20, ~(access | 1) if refused else 0x5234)):
        walker.load(cr0, TABLES, cr4, efer, None, Keys(pkru))
        assert walker.translate(0x1234, access) == got


def test_pae_takes_the_pdptes_that_mov_to_cr3_loaded():
    """SDM Vol. 3A, "PDPTE Registers": memory does not count until the next one."""
    gva = 0x40001234
    gpas = lay(36, gva, [0x11001, 0x12003, 0x5003])
    cr0, cr4, efer = controls(36)
    walker = Walker(MEMORY)
    walker.load(cr0, TABLES, cr4, efer, (0, MEMORY.read_u64(gpas[0]), 0, 0))
    MEMORY.write_u64(gpas[0], 0)
    assert walker.translate(gva, WRITE) == 0x5234
    assert MEMORY.read_u64(gpas[2]) == 0x5063 and MEMORY.read_u64(gpas[1]) == 0x12023
    assert walker.translate(0x80000000, 0) == ~0
    walker.load(cr0, TABLES, cr4, efer)  # another task's: memory is all that is known
    assert walker.translate(gva, 0) == ~0


@pytest.mark.parametrize("mode, entries", [(32, [0x11007, 0x6007]), (48, [0x11007, 0x12007, 0x13007, 0x6007])])
def test_a_check_sets_no_flags(mode, entries):
    gpas = lay(mode, 0x234, entries)
    cr0, cr4, efer = controls(mode)
    walker = Walker(MEMORY)
    walker.load(cr0, TABLES, cr4, efer)
    size = SHAPES[mode][1]
    before = [MEMORY.read(gpa, size) for gpa in gpas]
    assert walker.translate(0x234, WRITE | USER | paging.CHECK) == 0x6234
    assert [MEMORY.read(gpa, size) for gpa in gpas] == before
    assert walker.translate(0x234, WRITE | USER | FETCH) == 0x6234 and MEMORY.read(gpas[0], size) != before[0]
