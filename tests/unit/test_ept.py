"""Extended page tables in real (host) memory, against a dictionary of pages."""

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.memory.ept import RAM, RWX, SIZES, UC, WB, Ept, R, W, X

PAGE = 0x1000
OWN = RWX << 53  # bits for software: the mapping's own rights
GIB = 1 << 30


class Pages:
    """Page allocator over the process's own memory."""

    def __init__(self):
        self.live = {}

    def take(self, size, align=PAGE):
        raw = ctypes.create_string_buffer(size + align)
        hpa = (ctypes.addressof(raw) + align - 1) & ~(align - 1)
        self.live[hpa] = raw
        return hpa

    def give(self, hpa):
        del self.live[hpa]


def test_the_largest_page_that_fits_is_used():
    ept = Ept(Pages(), SIZES)
    ept.map(0, 4 * GIB, 2 * GIB)
    assert ept.walk(GIB) == (OWN | 5 * GIB | RWX | WB << 3 | 1 << 6 | 1 << 7, GIB)
    ept.map(8 * GIB, 0x200000, 0x201000)
    assert ept.walk(8 * GIB)[1] == 0x200000
    assert ept.walk(8 * GIB + 0x200000)[1] == PAGE


def test_no_page_larger_than_the_cpu_has():
    ept = Ept(Pages(), (PAGE,))
    ept.map(0, 0, 0x400000)
    assert ept.walk(0x200000)[1] == PAGE


def test_alignment_of_the_host_side_counts_as_well():
    ept = Ept(Pages(), SIZES)
    ept.map(0, PAGE, 0x400000)
    assert ept.walk(0)[1] == PAGE


@pytest.mark.parametrize("bad", [(1, 0, PAGE), (0, 1, PAGE), (0, 0, 1)])
def test_what_is_no_page_is_refused(bad):
    with pytest.raises(ValueError, match="whole pages"):
        Ept(Pages(), SIZES).map(*bad)


@pytest.mark.parametrize("own", [RWX, R | W, R])
@given(changes=st.lists(st.tuples(st.integers(0, 1023), st.sampled_from([R, R | X, RWX, 0])), max_size=12))
def test_narrow_changes_the_page_and_no_other_and_gives_no_right(own, changes):
    ept = Ept(Pages(), SIZES)
    ept.map(0, GIB, 4 << 20, own)
    rights = dict.fromkeys(range(1024), own)
    for page, right in changes:
        ept.narrow(page * PAGE, right)
        rights[page] = right & own
    for page, right in rights.items():
        entry, size = ept.walk(page * PAGE)
        assert entry & 7 == right
        assert ept.own(page * PAGE) == own
        assert ept.translate(page * PAGE + 5) == (GIB + page * PAGE + 5 if right else None)
        assert entry >> 3 & 15 == RAM and size


def test_narrow_maps_nothing():
    ept = Ept(Pages(), SIZES)
    ept.narrow(GIB, RWX)
    assert ept.translate(GIB) is None and ept.own(GIB) == 0


def test_unmapped_pages_have_no_translation():
    ept = Ept(Pages(), SIZES)
    ept.map(0, 0, 0x200000)
    ept.unmap(0x5000, PAGE)
    assert ept.translate(0x5000) is None
    assert ept.translate(0x4FFF) == 0x4FFF and ept.translate(0x6000) == 0x6000
    assert ept.translate(GIB) is None


def test_unmapping_whole_large_pages_gives_their_tables_back():
    pages = Pages()
    ept = Ept(pages, SIZES)
    ept.map(0, 0, 8 << 21)
    before = len(pages.live)
    ept.narrow(0x5000, R)
    ept.narrow((3 << 21) + 0x7000, R)
    assert len(pages.live) == before + 2
    ept.unmap(0, 4 << 21)
    assert len(pages.live) == before
    assert ept.translate(0x5000) is None and ept.translate((4 << 21) - 1) is None
    assert ept.walk(4 << 21) == (OWN | 4 << 21 | RWX | RAM << 3 | 1 << 7, 1 << 21)
    ept.map(GIB, 0, GIB)
    ept.narrow(GIB + 0x5000, R)
    ept.unmap(GIB, GIB)
    assert ept.walk(GIB) == (0, 0) and len(pages.live) == before


def test_the_memory_type_is_kept_when_a_page_is_split():
    ept = Ept(Pages(), SIZES)
    ept.map(0, 0, 0x200000, R | W, UC)
    ept.narrow(0x3000, R)
    assert ept.walk(0)[0] & 0x7F == R | W | UC << 3


def test_release_gives_every_table_back():
    pages = Pages()
    ept = Ept(pages, SIZES)
    ept.map(0, 0, 0x201000)
    ept.narrow(0, R)
    assert len(pages.live) >= 4
    ept.release()
    assert not pages.live


def test_eptp_says_four_levels_and_write_back():
    ept = Ept(Pages(), SIZES)
    assert ept.eptp & 0xFFF == 3 << 3 | WB
    assert ept.eptp & ~0xFFF == ept.root


def test_lay_and_lift_leave_nothing():
    """Over nothing, over a small page, and within a large one, which stays split."""
    pages = Pages()
    ept = Ept(pages, SIZES)
    ept.map(0, GIB, 4 << 20)
    ept.map(0xFEE00000, 2 * GIB, PAGE)
    ept.narrow(0x200000, R)
    before = len(pages.live)
    wanted = {gpa: ept.walk(gpa) for gpa in (0x200000, 0xFEE00000, 0xFED40000, 0xFED41000, 1 << 40)}
    laid = []
    for n, gpa in enumerate(wanted):
        laid.append(ept.lay(gpa, 3 * GIB + n * PAGE, R | W))
        own = (R | W) << 53
        assert ept.walk(gpa) == (own | 3 * GIB + n * PAGE | R | W | WB << 3, PAGE)
    assert len(pages.live) > before
    while laid:
        ept.lift(laid.pop())
    assert {gpa: ept.walk(gpa) for gpa in wanted} == wanted
    assert len(pages.live) == before == len(ept._tables)
    large = ept.lay(0x1000, 3 * GIB, RWX)
    ept.lift(large)
    assert ept.walk(0x1000) == (OWN | GIB + 0x1000 | RWX | RAM << 3, PAGE)
