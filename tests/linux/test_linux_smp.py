"""Debian's kernels with 2, 4 and 8 processors; test_linux_cloud.py and test_linux_others.py have one or two of them."""

import re

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
    text = re.sub(r"^cpus = .*\n", "", file.read_text(), flags=re.MULTILINE)
    text = text.replace('"../', f'"{ROOT}/').replace("console=ttyS0", "console=ttyS0 quiet")
    copy.write_text(text + f"\ncpus = {cpus}\n")
    return copy


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


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
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
