"""The other ways to boot Debian's kernels: bzImage as shipped, the full kernel, a newer release's, a 32-bit one,
an older CPU. QUIET spares Bochs half of a boot; test_linux_cloud.py does without."""

import re

import calls32
import gdbs
import inside
import names
import odd
import pytest
import smp
import systemcalls
import view
import vtx
import with_module
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

CASES = {
    "newer-bzimage": ("linux-trixie", "corei7_skylake_x", 2),
    "32-bit-vmlinux": ("linux-686", "corei7_skylake_x", 4),
    "cloud-arrandale": ("linux", "corei5_arrandale_m520", 1),
}
# The newer kernel goes the way of the first two, the full one of Debian 12 unpacks itself for most of a minute.
LONG = {
    "full-vmlinux": ("linux-full", "corei7_skylake_x", 4),
    "cloud-bzimage": ("linux-bzimage", "corei7_skylake_x", 1),
    "full-bzimage": ("linux-full-bzimage", "corei7_skylake_x", 1),
}

WITH_MODULE = "linux-trixie"  # the guest with a module, a 32-bit and an odd program: gdb by newer ORC, newer entry code
QUIET = "quiet cryptomgr.notests"
TYPES = ("full-vmlinux", "newer-bzimage")
MOVED = "newer-bzimage"  # the case whose kernel unpacks itself to an address of its own choice
HOT_PLUG = OF_32_BITS = "32-bit-vmlinux"
WITH_SCREEN = "newer-bzimage"  # the case whose kernel is told of the screen, and logs there too


def changed(file, directory, screen, cpus):
    """A copy of a guest file with so many processors, whose kernel does less, or has a screen, a console there, and
    much to say."""
    text = re.sub(r"^cpus = .*\n", "", file.read_text(), flags=re.MULTILINE) + f"cpus = {cpus}\n"
    assert "console=ttyS0" in text
    text = text.replace('"../', f'"{file.parent.parent}/').replace(
        "console=ttyS0", "console=tty0 console=ttyS0 cryptomgr.notests" if screen else f"console=ttyS0 {QUIET}"
    )
    if file.stem == WITH_MODULE:
        guests, own = ROOT / "build/guests", directory / "initrd.cpio"
        programs = [(calls32.NAME, calls32.program()), (odd.NAME, odd.Program().file)]
        with_module.initramfs(guests / "initrd.cpio", guests / "trixie", own, programs)
        text = text.replace(f"{guests}/initrd.cpio", str(own))
    copy = directory / file.name
    copy.write_text(text + ('\nscreen = "on"\n' if screen else ""))
    return copy


@pytest.mark.parametrize("case", [*CASES, *(pytest.param(case, marks=pytest.mark.long) for case in LONG)])
def test_boots_to_a_shell_without_trouble(case, tmp_path):
    guest, cpu, cpus = {**CASES, **LONG}[case]
    file = changed(ROOT / f"guests/{guest}.toml", tmp_path, case == WITH_SCREEN, cpus)
    with Monitor(engine=vtx.engine(), cpu=vtx.cpu(cpu), guests=[file]) as monitor:
        shell = Shell(monitor, guest).wait()
        assert shell.run("echo $((6 * 7))") == "42\n"
        assert "Local timer interrupts" in shell.run("cat /proc/interrupts")
        smp.check_boot(shell, cpus)
        if case == HOT_PLUG:
            smp.check_hot_plug(shell, cpus - 1)
        assert names.differences(shell, guest, 15000, 500) == []
        if case == MOVED:
            names.check_moved(shell, guest)
        if case in TYPES or case == OF_32_BITS:
            names.check_search(shell, guest)
        if case in TYPES:
            inside.check(shell, guest)
            systemcalls.check(shell, guest)
            view.check_stacks(shell, guest)
            view.check_processes(shell, guest)
            view.check_sockets(shell, guest)
        if guest == WITH_MODULE:
            calls32.check(shell, guest)
            odd.check(shell, guest)
            gdbs.check(shell, guest)
        if case == WITH_SCREEN:
            shell.run("dmesg | grep -F 'console [tty0] enabled'")
            shell.run("echo on the screen > /dev/tty0")
            assert "on the screen" in monitor.eval(f"str(vms['{guest}'].screen())")
        shell.console.send("poweroff\n")
        monitor.console("repl").expect(rb"powered off by the guest", 240)
