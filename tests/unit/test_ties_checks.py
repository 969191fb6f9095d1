"""vmm/ties/checks.py: where windows lie, against a plain search for overlaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.ties import checks

PAGE = 0x1000


def test_windows_follow_each_other():
    sizes = (PAGE, 3 * PAGE, 2 * PAGE)
    gpas = checks.windows([{"name": str(i), "size": size} for i, size in enumerate(sizes)])
    assert gpas == [0xD0000000, 0xD0001000, 0xD0004000]


def test_a_window_lies_behind_one_that_names_its_place():
    low, high = {"name": "low", "size": PAGE, "gpa": 0xC0000000}, {"name": "high", "size": PAGE, "gpa": 0xE0000000}
    assert checks.windows([low, {"name": "w", "size": PAGE}]) == [0xC0000000, 0xD0000000]
    assert checks.windows([high, {"name": "w", "size": PAGE}]) == [0xE0000000, 0xE0001000]


@pytest.mark.parametrize("gpa", [0xD0000000, 0xD0001000, 0xCFFFF000])
def test_overlaps_are_named(gpa):
    with pytest.raises(ValueError, match=r"^\[1\]\.gpa: b at 0x.* overlaps a at 0xd0000000$"):
        checks.windows([{"name": "a", "size": 2 * PAGE}, {"name": "b", "size": 2 * PAGE, "gpa": gpa}])


@given(st.lists(st.tuples(st.integers(1, 0x30000), st.none() | st.integers(0xBFFF0, 0xFEC10)), max_size=6))
def test_no_two_windows_overlap_and_none_leaves_the_hole(wanted):
    entries = [{"name": str(i), "size": n * PAGE, "gpa": at and at * PAGE} for i, (n, at) in enumerate(wanted)]
    try:
        gpas = checks.windows(entries)
    except ValueError as error:
        assert str(error).startswith("[") and "\n" not in str(error)
        return
    ranges = sorted((gpa, gpa + entry["size"]) for gpa, entry in zip(gpas, entries, strict=True))
    assert all(0xC0000000 <= gpa and end <= 0xFEC00000 for gpa, end in ranges)
    assert all(end <= gpa for (_, end), (gpa, _) in zip(ranges, ranges[1:], strict=False))
    assert all(entry["gpa"] in (None, gpa) for gpa, entry in zip(gpas, entries, strict=True))
