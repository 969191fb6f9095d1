"""Linux beside the real-time guest under KVM's nested VMX: `make test-nested` only. Its disks and
the host's network are QEMU's, by the monitor's own drivers for virtio and AHCI."""

import hashlib
import random

import pytest
from pcanel.bench import modules
from pcanel.guest.initramfs import Archive
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
initrd = "initrd.cpio"
cmdline = "console=ttyS0 quiet cryptomgr.notests"
[[disk]]
image = "disk0.img"
mode = "rw"
[[disk]]
image = "disk1.img"
mode = "rw"
[[net]]
switch = "host"
"""
_SECTORS = 4096
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
    drivers = Archive()
    modules.add_modules(drivers, modules.VIRTIO + modules.BLK + modules.NET)
    (directory / "initrd.cpio").write_bytes((ROOT / "build/guests/initrd.cpio").read_bytes() + drivers.finish())
    for n in range(2):
        (directory / f"disk{n}.img").write_bytes(random.Random(n).randbytes(_SECTORS * 512))
    guests = []
    for name, text in (("linux", _LINUX), ("rtos", _RTOS)):
        guests.append(directory / f"{name}.toml")
        guests[-1].write_text(text)
    with Monitor(engine="nested", memory=512, guests=guests) as running:
        running.wait_booted(BOOT_TIMEOUT)
        running.directory = directory
        yield running


def test_the_real_time_guest_has_its_shell(running, ticks):
    console = ticks(running).console("rtos")
    console.wait(rb"^rtos: 32 priorities, tick 50 Hz$", BOOT_TIMEOUT)
    console.expect(rb"^-> ", BOOT_TIMEOUT)


def test_linux_has_its_shell(running, ticks):
    shell = Shell(ticks(running), "linux").wait()
    assert shell.run("uname -s") == "Linux\n"
    assert shell.run("grep -o -m 1 hypervisor /proc/cpuinfo") == "hypervisor\n"


def test_its_disks_are_those_of_qemu(running, ticks):
    """By virtio and by AHCI: read, written, and flushed through to the images."""
    shell = Shell(ticks(running), "linux")
    drives = "[type(disk.drive).__module__ for disk in vms['linux'].expansion.disks]"
    assert running.eval(drives) == ["vmm.host.virtio_blk", "vmm.host.ahci"]
    shell.run(modules.INSMOD)
    images = [running.directory / f"disk{n}.img" for n in range(2)]
    content = [bytearray(image.read_bytes()) for image in images]
    said = shell.run("md5sum /dev/vda /dev/vdb")
    assert [line.split()[0] for line in said.splitlines()] == [hashlib.md5(data).hexdigest() for data in content]
    for source, target in ("ab", "ba"):
        shell.run(f"dd if=/dev/vd{source} of=/dev/vd{target} bs=4k count=64 skip=100 seek=300 conv=fsync")
    for n in range(2):
        content[n][300 << 12 : 364 << 12] = content[1 - n][100 << 12 : 164 << 12]
    assert [image.read_bytes() for image in images] == content
    assert running.eval("vms['linux'].unclaimed()['refused']") == {}


def test_its_network_is_that_of_qemu(running, ticks):
    shell = Shell(ticks(running), "linux")
    assert running.eval("type(monitor.switches['host'].uplink.card).__module__") == "vmm.host.virtio_net"
    said = shell.run(
        "ip link set eth0 up; udhcpc -i eth0 -n -q -t 5 -s /bin/true 2>&1; ip addr add 10.0.2.15/24 dev eth0; "
        "ping -c 3 10.0.2.2"
    )
    assert "lease of 10.0.2.15 obtained from 10.0.2.2" in said
    assert "3 packets received, 0% packet loss" in said


def test_the_real_time_guest_still_answers(running, ticks):
    console = ticks(running).console("rtos")
    console.send("i\r")
    console.expect(rb"tShell", 120)
    console.expect(rb"^-> ", 120)
    assert running.eval("[vms[name].state in ('running', 'halted') for name in ('linux', 'rtos')]") == [True, True]
