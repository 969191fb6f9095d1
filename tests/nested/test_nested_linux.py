"""Linux beside the real-time guest under KVM's nested VMX: `make test-nested` only."""

import pytest
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import BOOT_TIMEOUT, Shell

pytestmark = pytest.mark.long

_TICK_HZ = 50  # an exit costs 15,000 ticks and more here, so an interrupt some 100,000
_LINUX = f"""
name = "linux"
memory = "192M"
protocol = "linux"
kernel = "{ROOT}/build/guests/cloud.vmlinux"
initrd = "{ROOT}/build/guests/initrd.cpio"
cmdline = "console=ttyS0 quiet cryptomgr.notests"
"""
_RTOS = f"""
name = "rtos"
memory = "16M"
protocol = "multiboot"
kernel = "{ROOT}/build/guests/rtos/rtos.elf"
cmdline = "hz={_TICK_HZ}"
priority = 10
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("guests")
    guests = []
    for name, text in (("linux", _LINUX), ("rtos", _RTOS)):
        guests.append(directory / f"{name}.toml")
        guests[-1].write_text(text)
    with Monitor(engine="nested", memory=512, guests=guests) as running:
        running.wait_booted(BOOT_TIMEOUT)
        yield running


def test_the_real_time_guest_has_its_shell(running, ticks):
    console = ticks(running).console("rtos")
    console.wait(rb"^rtos: 32 priorities, tick 50 Hz$", BOOT_TIMEOUT)
    console.expect(rb"^-> ", BOOT_TIMEOUT)


def test_linux_has_its_shell(running, ticks):
    shell = Shell(ticks(running), "linux").wait()
    assert shell.run("uname -s") == "Linux\n"
    assert shell.run("grep -o -m 1 hypervisor /proc/cpuinfo") == "hypervisor\n"


def test_the_real_time_guest_still_answers(running, ticks):
    console = ticks(running).console("rtos")
    console.send("i\r")
    console.expect(rb"tShell", 120)
    console.expect(rb"^-> ", 120)
    assert running.eval("[vms[name].state in ('running', 'halted') for name in ('linux', 'rtos')]") == [True, True]
