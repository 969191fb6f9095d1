"""The hash tables through which the shim finds handlers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.vtx.keys import Keys

_WORDS = st.integers(0, 0xFFFFFFFF)


@given(st.dictionaries(_WORDS, st.tuples(st.integers(1, 255), _WORDS), max_size=60))
def test_what_was_put_is_found(entries):
    keys = Keys(8, 0xFFFFFFFF)
    for key, (slot, datum) in entries.items():
        keys.put(key, slot, datum)
    for key, entry in entries.items():
        assert keys.find(key) == entry
    assert keys.find(next(k for k in range(100) if k not in entries)) is None


def test_a_key_can_be_put_again():
    keys = Keys(0, 0xFFFFFFFF)
    keys.put(7, 80, 1)
    keys.put(7, 81, 2)
    assert keys.find(7) == (81, 2)


def test_more_keys_than_there_is_room_for_are_refused():
    keys = Keys(0, 0xFFFFFFFF, bits=3)
    with pytest.raises(ValueError):
        for key in range(9):
            keys.put(key, 80)


def test_keys_that_are_left_to_the_default_make_room_for_others():
    """A device that moves through the address space, its place named and given up again each time."""
    keys = Keys(0, 0xFFFFFFFF, bits=3, default=48)
    keys.put(0xFEC00000, 81, 5)
    for key in range(0, 1000 << 12, 1 << 12):
        keys.put(key, 80)
        assert keys.find(key) == (80, 0)
        keys.put(key, 48)
    assert keys.find(0xFEC00000) == (81, 5)


def test_a_table_grows_with_what_is_in_it():
    keys = Keys(0, 0xFFFFFFFF, bits=3, default=48)
    for key in range(4):
        keys.put(key, 80 + key, key)
    larger = keys.grown()
    larger.put(100, 90, 1)
    assert [larger.find(key) for key in (0, 3, 100)] == [(80, 0), (83, 3), (90, 1)]
    assert keys.find(100) is None
