"""Debian from its own disk: SeaBIOS, its GRUB, its kernel and initrd, systemd, a login; and once more by a reset."""

import re

import pytest
import vtx
from login import BOOT, MACHINE, log_in, run
from pcanel.monitor import Monitor
from pcanel.paths import BUILD, ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def monitor():
    image = BUILD / "images/debian.img"
    assert image.is_file(), f"{image} is missing (make debian)"
    with Monitor(engine=vtx.engine(), guests=[ROOT / "guests/debian.toml"], memory=MACHINE) as monitor:
        yield monitor


@pytest.fixture(scope="module")
def console(monitor):
    console = monitor.console("debian")
    log_in(console)
    return console


def test_it_is_the_disks_own_system(monitor, console):
    assert "BOOT_IMAGE=/vmlinuz root=UUID=" in run(console, "cat /proc/cmdline")
    assert re.match(r"/dev/vda1 ", run(console, "findmnt -no SOURCE,FSTYPE /"))
    assert run(console, "systemctl is-system-running").strip() == "running"
    assert "Booting from Hard Disk..." in monitor.eval("vms['debian'].firmware.log")


def test_what_it_writes_is_kept_over_a_reset(monitor, console):
    run(console, "echo kept > /root/kept")
    console.send("reboot\n")
    console.expect(rb"Welcome to GRUB", BOOT)
    log_in(console)
    assert run(console, "cat /root/kept") == "kept\n"
    assert monitor.eval("vms['debian'].starts") == 2


def test_switched_off_it_forgets(monitor, console):
    console.send("poweroff\n")
    monitor.console("repl").expect(rb"powered off by the guest", 600)
    assert monitor.eval("vms['debian'].expansion.disks[0].changed") == 0
