"""Debian from its own disk in the ways that test_debian.py and test_debian_uefi.py leave: the full kernel, the newest
release by BIOS, the older one by UEFI. The full kernel has drivers for the display on PCI and for the PS/2 mouse."""

import re

import numpy
import pytest
from login import made, run, start
from pcanel.paths import BUILD
from PIL import Image

pytestmark = pytest.mark.long

FULL = [("full", "bios"), ("trixie-full", "uefi")]
ALL = [*FULL, ("full", "uefi"), ("debian", "uefi"), ("trixie", "bios")]
HOW = {name: f"make build/images/{name}.img" for name, _ in ALL}


@pytest.fixture(scope="module")
def monitor(request, tmp_path_factory):
    """Of a guest with a disk of that name and that firmware."""
    name, protocol = request.param
    file = tmp_path_factory.mktemp(name) / f"{protocol}.toml"
    file.write_text(f"""
memory = "512M"
protocol = "{protocol}"
screen = "graphics"
[[disk]]
image = "{made(BUILD / "images" / f"{name}.img", HOW[name])}"
""")
    with start(file) as monitor:
        monitor.disk, monitor.protocol = request.param
        yield monitor


def each(cases):
    return pytest.mark.parametrize("monitor", cases, indirect=True, ids="-".join)


@each(ALL)
def test_it_comes_to_a_login(monitor, console):
    assert "BOOT_IMAGE=/vmlinuz root=UUID=" in run(console, "cat /proc/cmdline")
    kernel = "-amd64" if "full" in monitor.disk else "-cloud-amd64"
    assert re.fullmatch(rf"[\d.+deb]+(-\d+)?{kernel}\n", run(console, "uname -r"))
    assert run(console, "cat /etc/debian_version").startswith("13" if "trixie" in monitor.disk else "12")
    assert run(console, "systemctl is-system-running --wait").strip() == "running"
    firmware = run(console, "cat /sys/firmware/efi/fw_platform_size 2>/dev/null || echo BIOS").strip()
    assert firmware == {"bios": "BIOS", "uefi": "64"}[monitor.protocol]


@each(FULL)
def test_the_display(monitor, console, tmp_path):
    run(console, "modprobe bochs; udevadm settle; echo shown > /dev/tty1")
    assert run(console, "cat /sys/class/drm/card[0-9]/device/vendor") == "0x1234\n"
    path = tmp_path / "screen.png"
    monitor.exec(f"vms[{monitor.protocol!r}].screenshot({str(path)!r})")
    shown = numpy.asarray(Image.open(path))
    assert shown.shape[:2] == (768, 1024) and 0 < (shown > 0).mean() < 0.5


@each(FULL)
def test_the_mouse(monitor, console):
    """Right and up, then a button, in Linux's own protocol."""
    run(console, "modprobe -a psmouse mousedev; udevadm settle")
    assert re.search(r'Name="[^"]*Mouse"', run(console, "cat /proc/bus/input/devices"))
    run(console, "dd if=/dev/input/mice bs=3 count=2 2>/dev/null | od -An -v -td1 -w3 > /root/moved & sleep 1")
    monitor.exec(f"mouse = vms[{monitor.protocol!r}].mouse\nmouse.move(20, -5)")
    run(console, "sleep 1")
    monitor.exec("mouse.click('left')")
    run(console, "wait")
    moves = [[int(value) for value in line.split()] for line in run(console, "cat /root/moved").splitlines()]
    assert moves == [[8, 20, 5], [9, 0, 0]]


@each(FULL)
def test_nothing_is_refused(monitor, console):
    assert monitor.eval(f"vms[{monitor.protocol!r}].unclaimed()['refused']") == {}
