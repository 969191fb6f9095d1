"""The other ways to boot Debian's kernels: bzImage as shipped, the full kernel, a newer release's, a 32-bit one,
an older CPU."""

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
CASES = {
    "cloud-bzimage": ("linux-bzimage", "corei7_skylake_x"),
    "full-vmlinux": ("linux-full", "corei7_skylake_x"),
    "full-bzimage": ("linux-full-bzimage", "corei7_skylake_x"),
    "newer-bzimage": ("linux-trixie", "corei7_skylake_x"),
    "32-bit-vmlinux": ("linux-686", "corei7_skylake_x"),
    "cloud-arrandale": ("linux", "corei5_arrandale_m520"),
}


@pytest.mark.parametrize("case", CASES)
def test_boots_to_a_shell_without_trouble(case):
    guest, cpu = CASES[case]
    with Monitor(engine=vtx.engine(), cpu=vtx.cpu(cpu), guests=[ROOT / f"guests/{guest}.toml"]) as monitor:
        shell = Shell(monitor, guest).wait()
        assert shell.run("echo $((6 * 7))") == "42\n"
        assert "Local timer interrupts" in shell.run("cat /proc/interrupts")
        # Without a rate from CPUID the kernel measures the TSC for a second or two before it settles.
        wait = f"for i in 1 2 3 4 5 6 7 8 9; do grep -qx tsc {CLOCK} && break; sleep 1; done"
        assert shell.run(f"{wait}; cat {CLOCK}") == "tsc\n"
        assert shell.troubles() == []
        shell.console.send("poweroff\n")
        monitor.console("repl").expect(rb"powered off by the guest", 240)
