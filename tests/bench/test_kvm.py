"""The peer of the bench: kvmrun in the outer system, with the monitor's loaders' memory."""

import pytest
from pcanel.bench import conditions, kvm, native
from pcanel.bench.measures import EXITS

ROUNDS = 50


@pytest.fixture(scope="module")
def rows():
    return kvm.rows(rounds=ROUNDS)


def test_each_row_is_measured(rows):
    own = {name for name, variant in conditions.VARIANTS.items() if not variant.peer}  # KVM has nothing like it
    assert {*rows} & {measure.name for measure in EXITS} == {measure.name for measure in EXITS} - own


def test_exits_cost_what_a_monitor_costs(rows):
    """More than natively; more in user space than in the kernel; most where memory is decoded."""
    bare = native.rows(rounds=ROUNDS)
    assert rows["cpuid"].median > 100 * bare["cpuid"].median
    assert rows["cpuid"].median < rows["in_pic"].median < rows["out_policy"].median < rows["mmio_policy"].median
    assert rows["rdmsr"].median < rows["rdmsr_watch"].median
    assert bare["int3"].median < rows["int3"].median + 10 < rows["int3_watch"].median


def test_a_touched_page_is_an_exit(rows):
    """Small pages, each present before the guest comes to it."""
    assert rows["page_first_touch"].min > rows["cpuid"].median
