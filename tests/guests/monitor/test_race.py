"""vmm/recipes/race.py on guests/race.toml: an order that breaks the lock is found, told and played again."""

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT


@pytest.fixture(scope="module")
def monitor():
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/race.toml"]) as monitor:
        monitor.wait_booted()
        monitor.exec("from vmm.recipes.race import find")
        yield monitor


def test_it_is_found_and_breaks_again(monitor):
    monitor.exec("race = find(vms['race'])", 300)
    rounds, seed, schedule = monitor.eval("(race.rounds, race.seed, race.schedule)")
    assert 1 <= rounds < 1000 and seed == rounds - 1
    assert {number for number, _ in schedule} == {0, 1}
    said = monitor.eval("repr(race)")
    assert said.startswith(f"round {rounds} of race breaks, by seed {seed}")
    assert f"{schedule[0][0]}: {schedule[0][1]}, {schedule[1][0]}: {schedule[1][1]}" in said
    assert monitor.eval("[race.replay() for _ in range(3)]") == [True] * 3
    monitor.exec("again = find(vms['race'], first=race.seed)", 300)
    assert monitor.eval("(again.rounds, again.schedule)") == (1, schedule)


def test_a_sound_lock_has_none(monitor):
    monitor.exec("vms['race'].config['cmdline'] = 'post=1 lock=sound'")
    monitor.exec("found = find(vms['race'], runs=10)", 300)
    assert monitor.eval("found") is None
    assert monitor.eval("vms['race'].interleave") is None
