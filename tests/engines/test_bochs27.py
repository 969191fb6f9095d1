"""Debian's Bochs 2.7, on which `make run` starts: what it does otherwise is found out, and guests run all the same."""

import os
from pathlib import Path

import pytest
import suite
from bench import DATA, Bench
from pcanel.engines.bochs_programs import DEBIAN
from pcanel.monitor import Monitor


@pytest.fixture(scope="module")
def running():
    with suite.monitor(None, "bochs27") as running:
        yield running


def test_it_is_debians(running):
    assert running.engine.program == DEBIAN.path
    assert DEBIAN.version() == "2.7"


def listening(pid):
    """Local addresses, in hexadecimal as /proc/net has them, on which a process accepts TCP connections."""
    links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes]


def test_its_display_listens_on_the_loopback_address_only(running):
    """Its VNC server takes any address, and the preloaded bind() makes loopback of that."""
    loopback = ("0100007F", "00000000000000000000000001000000")
    addresses = listening(running.engine.pid)
    assert addresses and set(addresses) <= set(loopback)


def test_the_trial_finds_what_it_does(running):
    running.exec("from vmm.vtx import trial")
    assert running.eval("monitor.trial.flaws == trial.FLAW_MASKED_HOST | trial.FLAW_UNMASKED_VIRTUAL")
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
        assert listening(fast.engine.pid) == []
        assert fast.eval("(monitor.trial.flaws, monitor.compacts)") == (0, True)
        assert fast.eval("monitor.trial.mtf == bool(monitor.caps.found['proc'].MONITOR_TRAP_FLAG)") is True
