"""The test guest with 2 and 4 processors, with APIC virtualization and without, and with its page watched."""

import re

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from pcanel.symbols import Symbols
from suite import BOOT_TIMEOUT, HOLD, TIMEOUT, image

_SUMMARY = re.compile(rb"^SUMMARY: .*\n", re.MULTILINE)
_WATCHED = 0x700000  # guests/smp/test_atomics.c


@pytest.fixture(scope="module", params=["corei7_skylake_x", "corei5_arrandale_m520"])
def running(request):
    guests = [ROOT / f"guests/smp/smp{cpus}.toml" for cpus in (2, 4)]
    with Monitor(engine=vtx.engine(), cpu=vtx.cpu(request.param), memory=256, guests=guests, image=image()) as monitor:
        monitor.wait_booted(BOOT_TIMEOUT)
        monitor.exec(HOLD)
        yield monitor


def run(monitor, name, options=""):
    """The guest's lines but for those of checks that passed, and how many there were of these."""
    console = monitor.console(name)
    before = len(console.text())
    monitor.exec(f"vm = vms[{name!r}]\nvm.config['cmdline'] = {options!r}\nvm.start()")
    monitor.console("repl").expect(rf"\[{name}\] powered off by the guest", TIMEOUT)
    console.expect(_SUMMARY, 30)
    lines = console.text()[before:].splitlines()
    passed = [line for line in lines if line.startswith("PASS: ")]
    return [line for line in lines if line.startswith("FAIL: ")], len(passed)


def test_names_are_those_of_the_file_that_it_booted(running):
    gva = Symbols(ROOT / "build/guests/smp/smp.elf")["main"]
    assert running.eval("vms['smp2'].symbols['main']") == gva
    assert running.eval(f"vms['smp2'].symbols.at({gva + 5})") == "main+0x5"
    assert ("main", gva) in running.eval("vms['smp2'].symbols.search('mai*')")


def test_two(running):
    failed, passed = run(running, "smp2", "cpus=2")
    assert failed == [] and passed > 160


def test_four(running):
    """What goes from each to each, and what the tables say; the rest takes long and tells no more."""
    failed, passed = run(running, "smp4", "cpus=4 only=topology,startup,ipi,ioapic,tlb,x2apic,x2_ipi")
    assert failed == [] and passed > 120


@pytest.mark.parametrize("access", ["w", "rwx"])
def test_locked_instructions_on_a_watched_page(running, access):
    """The monitor carries them out in the CPU's place; with 'w' it is the stores that exit."""
    running.exec(f"vm = vms['smp2']\n@vm.on(MEMORY, gpa={_WATCHED:#x}, access={access!r})\ndef seen(vcpu):\n    pass\n")
    try:
        failed, passed = run(running, "smp2", "cpus=2 only=watched")
        hits = running.eval("seen.hits")
    finally:
        running.exec("seen.detach()")
    assert failed == [] and passed == 16
    assert hits > 2000
