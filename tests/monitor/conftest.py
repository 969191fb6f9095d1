"""A monitor, and small guests made at its prompt (one boot per test file).

$PCANEL_ELF names another image than the build's, $PCANEL_CPU another model than the engine's default.
"""

import os
from pathlib import Path

import pytest
import vtx
from bench import Bench
from pcanel.monitor import Monitor
from pcanel.paths import ELF


@pytest.fixture(scope="module")
def bench():
    """The monitor without guests; the test makes its own."""
    image = Path(os.environ.get("PCANEL_ELF") or ELF)
    with Monitor(engine=vtx.engine(), cpu=os.environ.get("PCANEL_CPU"), memory=256, image=image) as monitor:
        monitor.wait_booted()
        bench = Bench(monitor)
        yield bench
        assert bench.alive()


@pytest.fixture(scope="module")
def xsave(bench):
    """Whether guests have XSAVE: CPU models before Sandy Bridge lack it."""
    return bool(bench.eval("__import__('cpu').cpuid(1)[2] >> 26 & 1"))


@pytest.fixture
def guest(bench):
    """Makes guests of the test's own, which are gone after it."""
    made = []

    def make(*args, **options):
        made.append(bench.guest(*args, **options))
        return made[-1]

    yield make
    for guest in made:
        guest.destroy()
