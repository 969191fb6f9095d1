"""The allocator of host pages, against a set of addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.memory.pages import PAGE, OutOfMemory, Pages

BASE = 0x200000


def make(size=64 * PAGE):
    zeroed = []
    return Pages([(BASE, size)], lambda hpa, n: zeroed.append((hpa, n))), zeroed


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 2, 8]), st.booleans()), max_size=40))
def test_nothing_is_handed_out_twice_and_all_comes_back(steps):
    pages, _ = make()
    taken = {}
    for count, align, give_one in steps:
        if give_one and taken:
            hpa = sorted(taken)[count % len(taken)]
            pages.give(hpa)
            del taken[hpa]
            continue
        try:
            hpa = pages.take(count * PAGE, align * PAGE)
        except OutOfMemory:
            continue
        assert hpa % (align * PAGE) == 0
        assert BASE <= hpa and hpa + count * PAGE <= BASE + 64 * PAGE
        for other, size in taken.items():
            assert hpa + count * PAGE <= other or other + size <= hpa
        taken[hpa] = count * PAGE
        assert pages.available == 64 * PAGE - sum(taken.values())
    for hpa in taken:
        pages.give(hpa)
    assert pages.free == [[BASE, BASE + 64 * PAGE]]


def test_memory_is_zeroed_when_taken_and_when_given():
    pages, zeroed = make()
    hpa = pages.take(3 * PAGE)
    pages.give(hpa)
    assert zeroed == [(hpa, 3 * PAGE)] * 2


def test_what_does_not_fit_says_what_there_is():
    pages, _ = make()
    with pytest.raises(OutOfMemory, match=r"1024 KiB of host memory wanted, 256 KiB free, largest run 256 KiB"):
        pages.take(1 << 20)


def test_reserved_memory_is_not_handed_out():
    pages, _ = make()
    pages.reserve(BASE + 8 * PAGE + 5, PAGE)
    taken = set()
    while pages.available:
        taken.add(pages.take(PAGE))
    assert {BASE + 8 * PAGE, BASE + 9 * PAGE}.isdisjoint(taken) and len(taken) == 62


def test_memory_below_one_mebibyte_is_left_alone():
    pages = Pages([(0, 0x9FC00), (0x100000, 2 * PAGE)], lambda hpa, n: None)
    assert pages.total == 2 * PAGE


@pytest.mark.parametrize("size", [0, -1, -PAGE, -3 * PAGE])
def test_no_bytes_cannot_be_taken(size):
    pages, _ = make()
    pages.take(PAGE)
    with pytest.raises(ValueError, match="cannot be taken"):
        pages.take(size)
    assert (pages.free, pages.available) == ([[BASE, BASE + 63 * PAGE]], 63 * PAGE)


def test_giving_what_was_not_taken_is_refused():
    pages, _ = make()
    with pytest.raises(ValueError, match="was not taken"):
        pages.give(BASE)
