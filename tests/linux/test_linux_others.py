"""The other ways to boot Debian's kernels: bzImage as shipped, the full kernel, a newer release's, a 32-bit one,
an older CPU. QUIET spares Bochs half of a boot; test_linux_cloud.py does without."""

import pytest
import vtx
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
CASES = {
    "full-vmlinux": ("linux-full", "corei7_skylake_x"),
    "newer-bzimage": ("linux-trixie", "corei7_skylake_x"),
    "32-bit-vmlinux": ("linux-686", "corei7_skylake_x"),
    "cloud-arrandale": ("linux", "corei5_arrandale_m520"),
}
# The newer kernel goes the way of these two; the full one unpacks itself for most of a minute.
LONG = {
    "cloud-bzimage": ("linux-bzimage", "corei7_skylake_x"),
    "full-bzimage": ("linux-full-bzimage", "corei7_skylake_x"),
}

QUIET = "quiet cryptomgr.notests"
WITH_SCREEN = "full-vmlinux"  # the case whose kernel is told of the screen, and logs there too


def changed(file, directory, screen):
    """A copy of a guest file whose kernel does less, or has a screen, a console there, and much to say."""
    text = file.read_text()
    assert "console=ttyS0" in text
    text = text.replace('"../', f'"{file.parent.parent}/').replace(
        "console=ttyS0", "console=tty0 console=ttyS0 cryptomgr.notests" if screen else f"console=ttyS0 {QUIET}"
    )
    copy = directory / file.name
    copy.write_text(text + ('\nscreen = "on"\n' if screen else ""))
    return copy


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.long) for case in LONG)])
def test_boots_to_a_shell_without_trouble(case, tmp_path):
    guest, cpu = {**CASES, **LONG}[case]
    file = changed(ROOT / f"guests/{guest}.toml", tmp_path, case == WITH_SCREEN)
    with Monitor(engine=vtx.engine(), cpu=vtx.cpu(cpu), guests=[file]) as monitor:
        shell = Shell(monitor, guest).wait()
        assert shell.run("echo $((6 * 7))") == "42\n"
        assert "Local timer interrupts" in shell.run("cat /proc/interrupts")
        # Without a rate from CPUID the kernel measures the TSC for a second or two before it settles.
        wait = f"for i in 1 2 3 4 5 6 7 8 9; do grep -qx tsc {CLOCK} && break; sleep 1; done"
        assert shell.run(f"{wait}; cat {CLOCK}") == "tsc\n"
        assert shell.troubles() == []
        if case == WITH_SCREEN:
            shell.run("dmesg | grep -F 'console [tty0] enabled'")
            shell.run("echo on the screen > /dev/tty0")
            assert "on the screen" in monitor.eval(f"str(vms['{guest}'].screen())")
        shell.console.send("poweroff\n")
        monitor.console("repl").expect(rb"powered off by the guest", 240)
