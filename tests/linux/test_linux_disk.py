"""Debian's cloud kernel with disks and an entropy device on PCI: its own drivers, loaded as modules."""

import hashlib
import random

import network
import pytest
import vtx
from pcanel.guest.initramfs import Archive
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import Shell

DRIVERS = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
    "drivers/char/hw_random/virtio-rng", *network.DRIVERS,
)  # fmt: skip
SECTORS = 4096
INSMOD = "for m in /m/*; do insmod $m || echo failed $m; done"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two images, one of which does not end at a chunk of 64 KiB."""
    paths = []
    for n, sectors in enumerate((SECTORS, 77)):
        paths.append(tmp_path_factory.mktemp("disks") / f"disk{n}.img")
        paths[-1].write_bytes(random.Random(n).randbytes(sectors * 512))
    return paths


@pytest.fixture(scope="module")
def shell(images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("guest")
    (tree,) = (ROOT / "build/guests/cloud/lib/modules").glob("*/kernel")
    archive = Archive()
    archive.add("m", 0o40755)
    for n, driver in enumerate(DRIVERS):
        archive.add(f"m/{n}.ko", 0o100644, (tree / f"{driver}.ko").read_bytes())
    initrd = directory / "initrd.cpio"
    initrd.write_bytes((ROOT / "build/guests/initrd.cpio").read_bytes() + archive.finish())
    file = directory / "linux.toml"
    file.write_text(f"""
memory = "256M"
protocol = "linux"
kernel = "{ROOT}/build/guests/cloud.vmlinux"
initrd = "{initrd}"
cmdline = "console=ttyS0 quiet cryptomgr.notests"
cpus = 2
rng = true
[[disk]]
image = "{images[0]}"
[[disk]]
image = "{images[1]}"
mode = "ro"
{network.KEYS}""")
    with Monitor(engine=vtx.engine(), guests=[file]) as monitor:
        shell = Shell(monitor, "linux").wait()
        assert "failed" not in shell.run(INSMOD)
        yield shell


def exits(shell, reason):
    return shell.monitor.eval(f"vms['linux'].exit_counts().get('{reason}', (0, 0))[0]")


def test_the_whole_disk_is_read(shell, images):
    said = shell.run("md5sum /dev/vda /dev/vdb")
    assert [line.split()[0] for line in said.splitlines()] == [hashlib.md5(i.read_bytes()).hexdigest() for i in images]
    told = shell.run("cat /sys/block/vda/serial; echo; cat /sys/block/vdb/ro /sys/block/vdb/size").split()
    assert told == ["disk0", "1", "77"]


def test_a_request_costs_one_exit(shell):
    before = exits(shell, "EPT_VIOLATION")
    shell.run("dd if=/dev/vda of=/dev/null bs=4k count=200 iflag=direct")
    assert 200 <= exits(shell, "EPT_VIOLATION") - before < 240


def test_what_is_written_is_read_and_the_image_is_as_it_was(shell, images):
    shell.run("dd if=/dev/vda of=/tmp/a bs=64k count=8; dd if=/tmp/a of=/dev/vda bs=64k seek=20 conv=fsync")
    shell.run("dd if=/tmp/a of=/dev/vda bs=512 seek=4001 count=95 conv=fsync; echo 3 > /proc/sys/vm/drop_caches")
    content = bytearray(images[0].read_bytes())
    first = content[: 8 << 16]
    content[20 << 16 : 28 << 16] = first
    content[4001 * 512 :] = first[: 95 * 512]
    assert shell.run("md5sum < /dev/vda").split()[0] == hashlib.md5(content).hexdigest()
    assert shell.monitor.eval("vms['linux'].expansion.disks[0].changed") == 9 << 16
    assert "rror" in shell.run("dd if=/tmp/a of=/dev/vdb bs=512 count=1 2>&1; echo x > /dev/vdb; true")


def test_both_processors_get_messages(shell):
    """The kernel keeps a disk's interrupt where it is; the entropy device's can be moved."""
    shell.run("for c in 1 2; do for i in /proc/irq/*/virtio2-input; do echo $c > ${i%/*}/smp_affinity; done; "
              "dd if=/dev/hwrng of=/dev/null bs=64 count=20; done")  # fmt: skip
    line = next(line for line in shell.run("cat /proc/interrupts").splitlines() if "virtio2-input" in line)
    assert all(int(count) >= 10 for count in line.split()[1:3]), line


def test_entropy(shell):
    first, second = [shell.run("dd if=/dev/hwrng bs=32 count=1 2>/dev/null | md5sum") for _ in range(2)]
    assert first != second and len(first.split()[0]) == 32
    assert shell.run("cat /sys/class/misc/hw_random/rng_current") == "virtio_rng.0\n"


def test_network_interfaces_and_their_switch(shell, tmp_path):
    network.prepare(shell)
    network.check_ping(shell)
    network.check_tcp(shell)
    network.check_without_offloads(shell)
    network.check_policies(shell)
    network.check_capture(shell, tmp_path / "linux.pcapng")


def test_the_board_is_listed_and_nothing_is_refused(shell):
    assert shell.monitor.eval("repr(vms['linux'].expansion.board.host)").splitlines() == [
        "00:00.0 8086:1237", "00:01.0 8086:7000", "00:01.3 8086:7113", "00:02.0 1af4:1042", "00:03.0 1af4:1042",
        "00:04.0 1af4:1044", "00:05.0 1af4:1041", "00:06.0 1af4:1041",
    ]  # fmt: skip
    assert shell.monitor.eval("vms['linux'].unclaimed()['refused']") == {}
    assert shell.troubles() == []


def test_switched_off_it_forgets(shell, images):
    shell.console.send("poweroff\n")
    shell.monitor.console("repl").expect(rb"powered off by the guest", 240)
    assert shell.monitor.eval("vms['linux'].expansion.disks[0].changed") == 0
    free = shell.monitor.eval("monitor.pages.available")
    shell.monitor.exec("vms['linux'].destroy()")
    assert shell.monitor.eval("monitor.pages.available") - free > 256 << 20
