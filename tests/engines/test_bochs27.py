"""Debian's Bochs 2.7, on which `make run` starts: what it does otherwise is found out, and guests run all the same."""

import pytest
import suite
from bench import DATA, Bench
from pcanel.engines.bochs_programs import DEBIAN
from pcanel.monitor import Monitor

FLAW_MASKED_HOST, FLAW_UNMASKED_VIRTUAL = 1, 2  # vmm/vtx/trial.py


@pytest.fixture(scope="module")
def running():
    with suite.monitor(None, "bochs27") as running:
        yield running


def test_it_is_debians(running):
    assert running.engine.program == DEBIAN.path
    assert DEBIAN.version() == "2.7"


def test_the_trial_finds_what_it_does(running):
    assert running.eval("monitor.trial.flaws") == FLAW_MASKED_HOST | FLAW_UNMASKED_VIRTUAL
    assert running.eval("(monitor.caps.found['proc'].MONITOR_TRAP_FLAG, monitor.trial.mtf)") == (0, False)
    assert running.eval("monitor.compacts") is False


@pytest.mark.parametrize("name", ["long64", "real16"])
def test_the_small_guests(running, name):
    suite.check(suite.run(running, name))


def test_typing_ends_a_guest_that_keeps_interrupts_off(running):
    """Its entries have IF clear, so no host interrupt ends them; the preemption timer does."""
    bench = Bench(running)
    guest = bench.guest(f"cli\nagain: inc qword ptr [{DATA:#x}]\njmp again")
    guest.go()
    running.exec("import time")
    before = guest.word()
    bench.run(50)
    assert guest.word() > before
    assert guest.eval("vm.state") == "running"
    guest.destroy()


def test_the_fast_one_needs_no_work_around():
    with Monitor(engine="bochs", memory=128) as fast:
        assert fast.engine.program != DEBIAN.path
        assert fast.eval("(monitor.trial.flaws, monitor.compacts)") == (0, True)
        assert fast.eval("monitor.trial.mtf == bool(monitor.caps.found['proc'].MONITOR_TRAP_FLAG)") is True
