"""Debian from its own disk: SeaBIOS, its GRUB, its kernel and initrd, systemd, a login, the network; then a reset, in
which GRUB reads what the system has written. The disk is the host's own, a copy of `make debian`'s."""

import os
import random
import re
import shutil
import signal

import journal
import network
import pytest
from login import BOOT, made, run, settle, start
from pcanel.disks.bootable import FIRST, SECTOR
from pcanel.paths import BUILD

IMAGE = BUILD / "images/debian.img"
DATA = random.Random(16).randbytes(200_000)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("debian")


@pytest.fixture(scope="module")
def monitor(directory):
    file = directory / "debian.toml"
    file.write_text("""
memory = "512M"
protocol = "bios"
[[disk]]
image = "disk.img"
mode = "rw"
[[net]]
switch = "host"
""")
    shutil.copyfile(made(IMAGE, "make debian"), directory / "disk.img")
    with start(file) as monitor:
        yield monitor


def test_it_is_the_disks_own_system(monitor, console):
    assert "BOOT_IMAGE=/vmlinuz root=UUID=" in run(console, "cat /proc/cmdline")
    assert re.match(r"/dev/vda1 ", run(console, "findmnt -no SOURCE,FSTYPE /"))
    assert run(console, "systemctl is-system-running --wait").strip() == "running"
    assert "Booting from Hard Disk..." in monitor.eval("vms['debian'].firmware.log")


def test_it_fetches_a_file(console, directory):
    """By the address and the route that DHCP has given to its systemd-networkd."""
    with network.served(directory, DATA) as url:
        run(console, f"wget -q -O fetched {url}")
    assert run(console, "stat -c %s fetched") == f"{len(DATA)}\n"


def test_what_is_flushed_is_on_the_hosts_disk(monitor, console, directory):
    """As it would be had the engine been killed then."""
    run(console, "sync")
    os.kill(monitor.engine.pid, signal.SIGSTOP)
    try:
        copy = root(directory)
    finally:
        os.kill(monitor.engine.pid, signal.SIGCONT)
    journal.replay(copy)
    assert journal.content(copy, "/root/fetched") == DATA


def test_grub_and_the_kernel_read_it_after_a_reset(monitor, console):
    """The boot loader's configuration, too, which makes this start a short one."""
    run(console, r"sed -i 's/ ro quiet / rw quiet init=\/bin\/bash /' /boot/grub/grub.cfg")
    console.send("reboot\n")
    console.expect(rb"Welcome to GRUB", BOOT)
    settle(console)
    assert "init=/bin/bash" in run(console, "cat /proc/cmdline")
    assert run(console, "stat -c %s /root/fetched") == f"{len(DATA)}\n"
    assert monitor.eval("vms['debian'].starts") == 2
    assert monitor.eval("vms['debian'].unclaimed()['refused']") == {}


def test_switched_off_it_is_whole(monitor, console, directory):
    console.send("mount -o remount,ro / && poweroff -ff\n")
    monitor.console("repl").expect(rb"powered off by the guest", 600)
    image = root(directory)
    journal.check_whole(image)
    assert journal.content(image, "/root/fetched") == DATA


def root(directory):
    """A copy of the disk's last partition, as it is now: e2fsck forgets an offset once it has replayed a journal."""
    copy = directory / "root.img"
    with (directory / "disk.img").open("rb") as disk, copy.open("wb") as file:
        disk.seek(FIRST * SECTOR)
        shutil.copyfileobj(disk, file, 1 << 20)
    return copy
