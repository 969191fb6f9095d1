"""The newest Debian from its own disk by UEFI: OVMF, GRUB on the EFI System Partition, its kernel, systemd, a login;
the firmware's variables in their file; a CD by Linux's own driver."""

import re
import shutil

import pytest
from login import BOOT, log_in, made, run, start
from pcanel.guest.file import UEFI_VARIABLES
from pcanel.image import burn
from pcanel.paths import BUILD

pytestmark = pytest.mark.long

IMAGE = BUILD / "images/trixie.img"
HOW = "pcanel image debian trixie --suite trixie"
NAME = "Pcanel-5a3f9e02-5f0d-4c1c-8a63-3c4e8f6f0b11"  # of a variable
VALUE = b"kept over resets"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("uefi")


@pytest.fixture(scope="module")
def monitor(directory):
    shutil.copyfile(UEFI_VARIABLES, directory / "variables.fd")
    burn(directory / "cd.iso", "", {"said": b"from the CD\n"}, "cat ls")
    file = directory / "trixie.toml"
    file.write_text(f"""
memory = "512M"
protocol = "uefi"
variables = "variables.fd"
[[disk]]
image = "{made(IMAGE, HOW)}"
[[cd]]
image = "cd.iso"
""")
    with start(file) as monitor:
        yield monitor


def test_it_is_entered_by_uefi(monitor, console):
    assert "BOOT_IMAGE=/vmlinuz root=UUID=" in run(console, "cat /proc/cmdline")
    assert run(console, "cat /sys/firmware/efi/fw_platform_size") == "64\n"
    assert re.match(r"/dev/vda1 ", run(console, "findmnt -no SOURCE,FSTYPE /"))
    assert run(console, "cat /etc/debian_version").startswith("13")
    assert run(console, "systemctl is-system-running").strip() == "running"


def test_the_cd_by_linux_own_driver(monitor, console):
    run(console, "modprobe -a virtio_scsi sr_mod isofs; udevadm settle; mount -o ro /dev/sr0 /mnt")
    assert run(console, "cat /mnt/said") == "from the CD\n"
    assert "PCANEL" in run(console, "cat /sys/block/sr0/device/vendor")
    run(console, "umount /mnt")


def test_a_variable_is_in_its_file(monitor, console, directory):
    run(console, "mount -t efivarfs none /sys/firmware/efi/efivars || mountpoint /sys/firmware/efi/efivars")
    place = f"/sys/firmware/efi/efivars/{NAME}"
    run(console, rf"printf '\007\000\000\000{VALUE.decode()}' > {place}")  # one write
    assert run(console, f"tail -c {len(VALUE)} {place}; echo") == VALUE.decode() + "\n"
    assert monitor.eval("vms['trixie'].firmware.variables.failures") == 0
    run(console, "sleep 1")
    assert monitor.eval("vms['trixie'].firmware.variables.kept")
    content = (directory / "variables.fd").read_bytes()
    assert "Pcanel\0".encode("utf-16-le") + VALUE in content


def test_it_is_there_after_a_reset(monitor, console):
    run(console, "echo kept > /root/kept; sync")
    console.send("reboot\n")
    console.expect(rb"BdsDxe: starting Boot", BOOT)
    log_in(console)
    assert run(console, "cat /root/kept") == "kept\n"
    assert run(console, f"tail -c {len(VALUE)} /sys/firmware/efi/efivars/{NAME}; echo") == VALUE.decode() + "\n"
    assert monitor.eval("vms['trixie'].starts") == 2
    assert monitor.eval("vms['trixie'].unclaimed()['refused']") == {}
