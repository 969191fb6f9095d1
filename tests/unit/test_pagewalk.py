"""vmm/debug/pagewalk.py beside vmm/memory/paging.py: the same address or the same error code, in every mode."""

import functools
import random

from hypothesis import given
from hypothesis import strategies as st
from support import Memory

from vmm.debug import pagewalk
from vmm.memory.paging import CHECK, FETCH, NOT_CANONICAL, UNBACKED, USER, WRITE, Walker

PG, WP, PSE, PAE, SMEP, SMAP = 1 << 31, 1 << 16, 1 << 4, 1 << 5, 1 << 20, 1 << 21
LMA, NXE = 1 << 10, 1 << 11
LA57 = 1 << 12


@functools.cache
def tables(seed):
    """Page tables in 128 KiB whose entries are plausible, and often wrong."""
    rng = random.Random(seed)
    memory = Memory(1 << 17)
    for gpa in range(0, 1 << 17, 8):
        entry = rng.randrange(33) << 12 | rng.choice((1, 1, 1, 0)) | rng.choice((2, 2, 0)) | rng.choice((4, 4, 0))
        if rng.random() < 0.15:
            entry |= 0x80
            if rng.random() < 0.7:
                entry &= ~0x1FF000
        if rng.random() < 0.1:
            entry |= 1 << 63
        if rng.random() < 0.03:
            entry |= 1 << rng.randrange(12, 63)
        memory.write_u64(gpa, entry)
    return memory


@given(
    st.integers(0, 1 << 32), st.integers(0, (1 << 64) - 1), st.sampled_from([0, WRITE, FETCH]), st.sampled_from([0, 3]),
    st.sampled_from(["none", "32", "pae", "long", "long5"]), st.integers(0, 63),
)  # fmt: skip
def test_it_agrees_with_the_walker(seed, gva, access, cpl, kind, bits):
    cr0 = (0 if kind == "none" else PG) | (WP if bits & 1 else 0)
    cr4 = (0 if kind in ("none", "32") else PAE) | (PSE if bits & 2 else 0) | (SMEP if bits & 4 else 0)
    cr4 |= (SMAP if bits & 8 else 0) | (LA57 if kind == "long5" else 0)
    efer = (LMA if kind.startswith("long") else 0) | (NXE if bits & 16 else 0)
    if bits & 32:
        gva &= (1 << 47) - 1
    memory = tables(seed & 7)
    walker = Walker(memory, 40)
    walker.load(cr0, 0x3000, cr4, efer)
    user = USER if cpl == 3 else 0
    expected = walker.translate(gva, access | user | CHECK)
    found = pagewalk.walk(memory, pagewalk.Mode(cr0, 0x3000, cr4, efer, maxphyaddr=40), gva, access, cpl)
    repr(found)
    if expected == UNBACKED:
        assert found.why == "a page table lies outside the guest's memory"
    elif expected == NOT_CANONICAL:
        assert "not canonical" in found.why
    elif expected < 0:
        assert (found.error, bool(found.why)) == (~expected, True)
    else:
        assert (found.gpa, found.why) == (expected, "")


def test_each_level_is_shown():
    memory = Memory(1 << 20)
    for gpa, entry in ((0x3000, 0x4027), (0x4000, 0x5027), (0x5000, 0x6025), (0x6008, 0x8000000000007163)):
        memory.write_u64(gpa, entry)
    found = pagewalk.walk(memory, pagewalk.Mode(PG | WP, 0x3000, PAE, LMA | NXE), 0x1234, WRITE, 0)
    assert repr(found).splitlines() == [
        "write of gva 0x1234 at CPL 0, 4-level paging",
        "PML4E at 0x3000      0x0000000000004027  P RW US A",
        "PDPTE at 0x4000      0x0000000000005027  P RW US A",
        "PDE   at 0x5000      0x0000000000006025  P US A",
        "PTE   at 0x6008      0x8000000000007163  P RW A D G XD",
        "faults: #PF(0x3): the page is read-only: the PDE has RW = 0, and CR0.WP = 1",
        "gpa 0x7234, in a page of 4 KiB",
    ]
