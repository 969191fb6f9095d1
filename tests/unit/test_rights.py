"""A page's rights in EPT: its mapping's own, less what every watcher takes away; against a model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_ept import PAGE, Pages

from vmm.memory.ept import RWX, SIZES, Ept, R, W, X
from vmm.memory.rights import Rights

OWN = {0: RWX, 1: R | W, 2: R, 3: 0}  # of four pages; the last is not mapped
RIGHTS = st.integers(0, RWX)


def make(execute_only=True):
    ept = Ept(Pages(), SIZES)
    for page, own in OWN.items():
        if own:
            ept.map(page * PAGE, (8 + page) * PAGE, PAGE, own)
    return ept, Rights(ept, execute_only)


def left(taken, execute_only):
    """What EPT can say of all rights without those that are taken."""
    rights = RWX & ~taken
    if not rights & R:
        rights &= X if execute_only else 0
    return rights


@pytest.mark.parametrize("execute_only", [True, False])
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), RIGHTS), max_size=20))
def test_watchers_come_and_go_in_any_order(execute_only, steps):
    ept, rights = make(execute_only)
    taken = {}
    for watcher, page, what in steps:
        rights.take(page * PAGE, watcher, what)
        taken[watcher, page] = what
        for other, own in OWN.items():
            all_taken = 0
            for (_, at), bits in taken.items():
                all_taken |= bits if at == other else 0
            assert ept.walk(other * PAGE)[0] & RWX == own & left(all_taken, execute_only)
    for watcher, page in taken:
        rights.take(page * PAGE, watcher, 0)
    assert [ept.walk(page * PAGE)[0] & RWX for page in OWN] == list(OWN.values())
    assert not rights._taken


@given(st.integers(0, 2), RIGHTS, st.sampled_from([R, W, X]))
def test_nothing_is_lent_that_ept_cannot_express(page, taken, lent):
    """Without execute-only pages what can be executed can be read."""
    ept, rights = make(False)
    rights.take(page * PAGE, "policy", taken)
    rights.lend(page * PAGE, lent)
    now = ept.walk(page * PAGE)[0] & RWX
    assert now & R or not now


@given(st.integers(0, 2), RIGHTS, st.lists(st.sampled_from([R, W, X, R | W]), min_size=1, max_size=3))
def test_what_is_lent_is_the_mappings_own_and_taken_away_again(page, taken, lent):
    ept, rights = make()
    rights.take(page * PAGE, "policy", taken)
    before = ept.walk(page * PAGE)[0]
    for what in lent:
        rights.lend(page * PAGE, what)
        now = ept.walk(page * PAGE)[0] & RWX
        assert now & ~OWN[page] == 0 and now & what == OWN[page] & what
    rights.restore()
    assert ept.walk(page * PAGE)[0] == before


def test_a_page_that_is_mapped_again_is_still_watched():
    ept, rights = make()
    rights.take(0, "policy", W)
    rights.take(3 * PAGE, "policy", R | W)
    ept.unmap(0, PAGE)
    ept.map(0, 0, 4 * PAGE)
    assert [ept.walk(page * PAGE)[0] & RWX for page in OWN] == [R | X, RWX, RWX, X]
    ept.defer(0, 0, PAGE)  # it is watched, and so it is mapped at once
    assert ept.walk(0)[0] & RWX == R | X
    rights.take(0, "policy", 0)
    assert ept.walk(0)[0] & RWX == RWX


def test_fetches_see_another_page_until_a_step_is_lent_the_pages_own():
    ept, rights = make()
    shown, own = 0x20 * PAGE, 8 * PAGE
    written = []
    rights.take(0, "face", R | W)
    rights.show(0, shown, own, lambda: written.append(1))
    assert ept.translate(0) == shown and ept.walk(0)[0] & RWX == X
    rights.lend(0, R)
    assert ept.translate(0) == own and not written
    rights.restore()
    assert ept.translate(0) == shown and not written
    rights.lend(0, W)
    rights.restore()
    assert ept.translate(0) == shown and written == [1]
    rights.show(0, None, own)
    rights.take(0, "face", 0)
    assert ept.translate(0) == own and ept.walk(0)[0] & RWX == RWX
