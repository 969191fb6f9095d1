"""Debian's kernels with several processors."""

import pytest
import smp
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell


def guest_file(name, cpus, directory):
    """A copy of a guest file with so many processors."""
    file = ROOT / f"guests/{name}.toml"
    copy = directory / file.name
    text = file.read_text().replace('"../', f'"{ROOT}/').replace("console=ttyS0", "console=ttyS0 quiet")
    copy.write_text(text + f"\ncpus = {cpus}\n")
    return copy


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The cloud kernel with two."""
    file = guest_file("linux", 2, tmp_path_factory.mktemp("guest"))
    with Monitor(engine=vtx.engine(), guests=[file]) as monitor:
        yield Shell(monitor, "linux").wait()


def test_both_are_there(two):
    smp.check_boot(two, 2)


def test_work_on_both(two):
    before = smp.interrupts(two)
    smp.load(two, 2)
    smp.check_interrupts(two, 2, before)


def test_one_goes_and_comes_back(two):
    smp.check_hot_plug(two, 1)


def test_pause_stops_both(two):
    monitor = two.monitor
    monitor.exec("vms['linux'].pause()")
    ticks = "[vcpu.guest_ticks for vcpu in vms['linux'].vcpus]"
    before = monitor.eval(ticks)
    monitor.exec("import time\ntime.sleep_ms(200)")
    assert monitor.eval(ticks) == before
    monitor.exec("vms['linux'].resume()")
    assert two.run("echo still here") == "still here\n"
    assert len(before) == 2 and min(before) > 0


def test_reboot_and_power_off(two):
    two.console.send("reboot\n")
    two.console.expect(rb"reboot: Restarting system", 240)
    two.wait()
    smp.check_boot(two, 2)
    two.console.send("poweroff\n")
    two.monitor.console("repl").expect(rb"\[linux\] powered off by the guest", 240)


CASES = {
    "cloud-4": ("linux", 4, "corei7_skylake_x"),
    "cloud-8": ("linux", 8, "corei7_skylake_x"),
    "cloud-2-arrandale": ("linux", 2, "corei5_arrandale_m520"),
    "full-2": ("linux-full", 2, "corei7_skylake_x"),
    "full-4": ("linux-full", 4, "corei7_skylake_x"),
    "full-8": ("linux-full", 8, "corei7_skylake_x"),
    "rt-2": ("rt-linux", 2, "corei7_skylake_x"),
    "rt-4": ("rt-linux", 4, "corei7_skylake_x"),
    "rt-8": ("rt-linux", 8, "corei7_skylake_x"),
    "686-2": ("linux-686", 2, "corei7_skylake_x"),
    "686-4": ("linux-686", 4, "corei7_skylake_x"),
    "686-8": ("linux-686", 8, "corei7_skylake_x"),
}


IN_EACH_RUN = "686-4"


@pytest.mark.parametrize(
    "case", [case if case == IN_EACH_RUN else pytest.param(case, marks=pytest.mark.long) for case in CASES]
)
def test_the_others(case, tmp_path):
    name, cpus, model = CASES[case]
    with Monitor(engine=vtx.engine(), cpu=vtx.cpu(model), guests=[guest_file(name, cpus, tmp_path)]) as monitor:
        shell = Shell(monitor, name).wait()
        smp.check_boot(shell, cpus)
        before = smp.interrupts(shell)
        smp.load(shell, cpus, 1)
        smp.check_interrupts(shell, cpus, before)
        smp.check_hot_plug(shell, cpus - 1)
        shell.console.send("poweroff\n")
        monitor.console("repl").expect(rb"powered off by the guest", 240)
