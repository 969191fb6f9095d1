"""The peer of the bench: kvmrun in the outer system, with the monitor's loaders' memory."""

import pytest
from pcanel.bench import guest, kvm, native
from pcanel.bench.measures import EXITS

ROUNDS = 50


@pytest.fixture(scope="module")
def rows():
    return kvm.rows(rounds=ROUNDS)


def test_each_row_is_measured(rows):
    own = {"cpuid_mitigated"}  # of the monitor only: KVM has none on
    assert {*rows, *guest.DEMAND_ROWS.values()} == {measure.name for measure in EXITS} - own


def test_exits_cost_what_a_monitor_costs(rows):
    """More than natively; more in user space than in the kernel; most where memory is decoded."""
    bare = native.rows(rounds=ROUNDS)
    assert rows["cpuid"].median > 100 * bare["cpuid"].median
    assert rows["cpuid"].median < rows["in_pic"].median < rows["out_policy"].median < rows["mmio_policy"].median


def test_a_touched_page_is_an_exit(rows):
    """Small pages, each present before the guest comes to it."""
    assert rows["page_first_touch"].min > rows["cpuid"].median
