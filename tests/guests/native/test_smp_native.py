"""The test guest with several processors boots natively: its checks must hold on the engines themselves."""

import re
import subprocess

import engines
import pytest
from pcanel.paths import BUILD, ROOT
from test_guests import verdict

IMAGE = BUILD / "guests/smp/smp.elf"
RACE = BUILD / "guests/smp/race.elf"
TRIES = 20


@pytest.fixture(scope="module", autouse=True)
def images():
    subprocess.run(["make", "-s", "-C", ROOT / "guests/smp"], check=True)


@pytest.mark.parametrize("cpus", [2, pytest.param(4, marks=pytest.mark.long)])
def test_qemu(cpus):
    verdict(engines.run_qemu(IMAGE, 600, cpus, counted=True))


@pytest.mark.long  # Debian's Bochs: its CPUs take turns, and each is slower than the one of 3.0
def test_bochs():
    verdict(engines.run_bochs(IMAGE, engines.BOCHS_MODELS[0], 600, cpus=2))


@pytest.mark.parametrize(("lock", "breaks"), [("hole", True), ("sound", False)])
def test_the_race(lock, breaks):
    """Two threads of QEMU's find the hole, once they run at the same time: a busy host may run one after the other. The
    sound lock has none."""
    for _ in range(TRIES if breaks else 1):
        output = engines.run_qemu(RACE, 120, 2, f"rounds=100000 lock={lock}")
        rounds, broken = map(int, re.search(r"^race: (\d+) rounds, (\d+) broken$", output, re.MULTILINE).groups())
        assert rounds == 100000
        if broken:
            break
    assert (broken > 0) == breaks
