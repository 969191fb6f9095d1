"""Debian's cloud kernel with disks and an entropy device on PCI: its own drivers, loaded as modules."""

import hashlib
import os
import random
import shutil
import signal
import time

import journal
import network
import pytest
import vtx
from pcanel.errors import ConsoleTimeout
from pcanel.guest.initramfs import Archive
from pcanel.monitor import Monitor
from pcanel.paths import ROOT
from shell import PROMPT, Shell

DRIVERS = (
    "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci", "virtio/virtio_mmio", "block/virtio_blk", "char/hw_random/virtio-rng", "char/virtio_console",
    "uio/uio", "uio/uio_pci_generic",
)  # fmt: skip
SECTORS = 4096
LARGE = 33 << 20  # no boot module
INSMOD = "for m in /m/*; do insmod $m || echo failed $m; done"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two small images, one of which does not end at a chunk of 64 KiB; one to write to; a large one."""
    paths = []
    for n, sectors in enumerate((SECTORS, 77)):
        paths.append(tmp_path_factory.mktemp("disks") / f"disk{n}.img")
        paths[-1].write_bytes(random.Random(n).randbytes(sectors * 512))
    written, large = paths[0].parent / "written.img", paths[0].parent / "large.img"
    journal.make(written)
    large.write_bytes(random.Random(2).randbytes(LARGE))
    return [*paths, written, large]


@pytest.fixture(scope="module")
def shell(images, tmp_path_factory):
    directory = tmp_path_factory.mktemp("guest")
    (tree,) = (ROOT / "build/guests/cloud/lib/modules").glob("*/kernel/drivers")
    archive = Archive()
    archive.add("m", 0o40755)
    for n, driver in enumerate(DRIVERS + network.DRIVERS):
        archive.add(f"m/{n:02}.ko", 0o100644, (tree / f"{driver}.ko").read_bytes())
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
hvc = true
devices = ["{ROOT}/guests/devices/egg.py:Egg", "{ROOT}/guests/devices/serial.py:Serial"]
[[disk]]
image = "{images[0]}"
[[disk]]
image = "{images[1]}"
mode = "ro"
[[disk]]
image = "{images[2]}"
mode = "rw"
[[disk]]
image = "{images[3]}"
[[disk]]
image = "{images[1]}"
transport = "virtio-mmio"
{network.KEYS}""")
    with Monitor(engine=vtx.engine(), guests=[file]) as monitor:
        shell = Shell(monitor, "linux").wait()
        assert "failed" not in shell.run(INSMOD)
        yield shell


def exits(shell, reason):
    return shell.monitor.eval(f"vms['linux'].exit_counts().get('{reason}', (0, 0))[0]")


def test_the_whole_disk_is_read(shell, images):
    said = shell.run("md5sum /dev/vda /dev/vdb")
    assert [line.split()[0] for line in said.splitlines()] == [
        hashlib.md5(i.read_bytes()).hexdigest() for i in images[:2]
    ]
    told = shell.run("cat /sys/block/vda/serial; echo; cat /sys/block/vdb/ro /sys/block/vdb/size").split()
    assert told == ["disk0", "1", "77"]


def test_a_disk_by_registers_in_memory(shell, images):
    """ACPI tells the kernel of it."""
    assert shell.run("md5sum /dev/vde").split()[0] == hashlib.md5(images[1].read_bytes()).hexdigest()
    shell.run("dd if=/dev/vda of=/dev/vde bs=512 count=7 conv=fsync; echo 3 > /proc/sys/vm/drop_caches")
    assert shell.run("dd if=/dev/vde bs=512 count=7 2>/dev/null | md5sum") == shell.run(
        "dd if=/dev/vda bs=512 count=7 2>/dev/null | md5sum"
    )
    assert "LNRO0005:00" in shell.run("ls /sys/bus/platform/drivers/virtio-mmio")


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


def test_a_disk_of_the_machine_is_read_and_scratch_is_written(shell, images):
    content = images[3].read_bytes()
    some = content[5 << 16 : 13 << 16]
    assert (
        shell.run("dd if=/dev/vdd bs=64k skip=5 count=8 2>/dev/null | md5sum").split()[0]
        == hashlib.md5(some).hexdigest()
    )
    shell.run(
        "dd if=/dev/vdd of=/tmp/b bs=64k skip=5 count=8; dd if=/tmp/b of=/dev/vdd bs=4k seek=1001 count=100 conv=fsync"
    )
    shell.run("echo 3 > /proc/sys/vm/drop_caches")
    after = bytearray(content[: 6 << 20])
    after[1001 << 12 : 1101 << 12] = some[: 100 << 12]
    assert shell.run("dd if=/dev/vdd bs=64k count=96 2>/dev/null | md5sum").split()[0] == hashlib.md5(after).hexdigest()
    assert shell.monitor.eval("vms['linux'].expansion.disks[3].changed") == 7 << 16
    assert images[3].read_bytes() == content


def test_what_is_flushed_is_in_the_image(shell, images):
    shell.run("dd if=/dev/vda of=/tmp/c bs=64k count=8; dd if=/tmp/c of=/dev/vdc bs=4k seek=5500 count=100 conv=fsync")
    assert images[2].read_bytes()[5500 << 12 : 5600 << 12] == images[0].read_bytes()[: 100 << 12]


def test_a_disk_is_not_waited_for_within_an_exit(shell):
    """Reads far apart, for which the disk seeks some 300,000 ticks each."""
    before = shell.monitor.eval("(vms['linux'].exit_counts()['EPT_VIOLATION'], vms['linux'].clock.now())")
    shell.run("for i in 1 8000 2 7000 3 6000; do dd if=/dev/vdd of=/dev/null bs=4k skip=$i count=1 iflag=direct; done")
    after = shell.monitor.eval("(vms['linux'].exit_counts()['EPT_VIOLATION'], vms['linux'].clock.now())")
    assert 6 <= after[0][0] - before[0][0] < 40
    assert after[0][1] - before[0][1] < 1_200_000 < 1_800_000 < after[1] - before[1]


def test_both_processors_get_messages(shell):
    """The kernel keeps a disk's interrupt where it is; the entropy device's can be moved."""
    shell.run("for c in 1 2; do for i in /proc/irq/*/virtio4-input; do echo $c > ${i%/*}/smp_affinity; done; "
              "dd if=/dev/hwrng of=/dev/null bs=64 count=20; done")  # fmt: skip
    line = next(line for line in shell.run("cat /proc/interrupts").splitlines() if "virtio4-input" in line)
    assert all(int(count) >= 10 for count in line.split()[1:3]), line


def test_a_device_of_ones_own(shell):
    """The example of docs/devices.md, with the driver for programs: it rings, and again once that has been served."""
    shell.run("d=/sys/bus/pci/devices/0000:00:06.0; echo 1234 0e66 > /sys/bus/pci/drivers/uio_pci_generic/new_id")
    base = int(shell.run("head -n1 $d/resource").split()[0], 16)
    shell.run("exec 3</dev/uio0")
    for count in (1, 2):
        shell.run(f"devmem {base + 4:#x} 32 1000")
        assert shell.run("dd bs=4 count=1 <&3 2>/dev/null | od -An -tu4").split() == [str(count)]
        assert [int(shell.run(f"devmem {base + at:#x} 32"), 16) for at in (0, 8)] == [count, 1]
        shell.run(f"devmem {base + 8:#x} 32 0")
        assert int(shell.run(f"devmem {base + 8:#x} 32"), 16) == 0
        shell.run(r"printf '\003\000' | dd of=$d/config bs=1 seek=4 conv=notrunc")  # the driver has disabled INTx
    shell.run("exec 3<&-")


def test_configuration_space_in_memory(shell):
    """The kernel finds the MCFG, believes it because ACPI says that the place is taken, and reads there what the ports
    do not have: a device's serial number."""
    log = shell.run("dmesg | grep MMCONFIG")
    assert "PCI: MMCONFIG for domain 0000 [bus 00-00] at [mem 0xfef00000-0xfeffffff]" in log
    assert "PCI: MMCONFIG at [mem 0xfef00000-0xfeffffff] reserved in ACPI motherboard resources" in log
    shell.run("p=/sys/bus/pci/devices/0000:00")
    assert shell.run("wc -c < $p:06.0/config; wc -c < $p:07.0/config").split() == ["256", "4096"]
    assert shell.run("dd if=$p:07.0/config bs=1 skip=260 count=8 2>/dev/null; echo") == "PCANELPY\n"


def test_messages_without_a_table(shell):
    """The kernel's own driver of a serial port with MSI, which types and is typed at."""
    monitor = shell.monitor
    tty = "/dev/" + shell.run(r"dmesg | sed -n 's/.* 0000:00:07\.0: \(ttyS[0-9]*\) at .*/\1/p'").strip()
    shell.run(f"stty -F {tty} raw -echo 115200; exec 3<>{tty}; echo by message >&3; sleep 0.2")
    uart = "[f for f in vms['linux'].expansion.board.host.functions.values() if hasattr(f, 'uart')][0]"
    assert monitor.eval(f"bytes({uart}.sent)") == b"by message\n"
    monitor.exec(f"for byte in b'and back\\n': {uart}.uart.rx(byte)")
    assert shell.run("read line <&3; echo $line") == "and back\n"
    line = next(line for line in shell.run("cat /proc/interrupts").splitlines() if tty[5:] in line)
    assert "PCI-MSI" in line and sum(int(count) for count in line.split()[1:3]) >= 2
    shell.run("exec 3<&-")


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
    network.check_other_captures(shell, tmp_path / "first.pcapng")
    network.check_host(shell, tmp_path)
    network.check_forward(shell)


def test_hvc0_is_typed_at_and_answers_at_the_prompt(shell):
    shell.run("{ read line; echo heard $line; } < /dev/hvc0 > /dev/hvc0 2>&1 & true")
    repl = shell.monitor.console("repl")
    repl.send("\r")
    repl.expect(rb"^>>> ", 240)
    repl.send("vms['linux'].expansion.hvc()\r")
    repl.expect(rb"Ctrl-\]", 240)
    repl.send("by virtio\r")
    repl.expect(rb"heard by virtio", 240)
    repl.send("\x1d")
    repl.expect(rb"^>>> ", 240)
    assert shell.monitor.eval("vms['linux'].expansion.hvc.tail()").endswith("by virtio\r\nheard by virtio\r\n")


def test_the_board_is_listed_and_nothing_is_refused(shell):
    assert shell.monitor.eval("repr(vms['linux'].expansion.board.host)").splitlines() == [
        "00:00.0 8086:1237", "00:01.0 8086:7000", "00:01.3 8086:7113", "00:02.0 1af4:1042", "00:03.0 1af4:1042",
        "00:04.0 1af4:1042", "00:05.0 1af4:1042", "00:06.0 1234:0e66", "00:07.0 9710:9900", "00:08.0 1af4:1044",
        "00:09.0 1af4:1041", "00:0a.0 1af4:1041", "00:0b.0 1af4:1041", "00:0c.0 1af4:1043",
    ]  # fmt: skip
    assert shell.monitor.eval("vms['linux'].unclaimed()['refused']") == {}
    assert shell.troubles() == []


def test_what_was_flushed_is_there_whenever_it_is_looked_at(shell, images):
    """The engine stands still while the image is copied: so it would be had the engine been killed then."""
    shell.console.send(journal.LOAD.format(device="/dev/vdc") + "\n")
    copy = images[2].with_suffix(".copy")
    for n in range(3):
        shell.console.expect(rb"flushed %d\r?\n" % (10 * n + 5), 240)
        time.sleep(random.random() / 2)
        numbers = journal.told(shell.console.log.read_bytes())
        os.kill(shell.monitor.engine.pid, signal.SIGSTOP)
        try:
            shutil.copyfile(images[2], copy)
        finally:
            os.kill(shell.monitor.engine.pid, signal.SIGCONT)
        assert len(numbers) >= 10 * n + 5
        journal.check(copy, numbers)
    for _ in range(20):  # one may end a command of the loop only
        shell.console.send("\x03")
        try:
            shell.console.expect(PROMPT, 10)
            break
        except ConsoleTimeout:
            pass
    shell.run("umount /j")


def test_state_is_saved_and_loaded_under_load(shell, images):
    """Both transports, disks in memory and of the machine, while the guest reads and writes them."""
    expected = hashlib.md5(images[3].read_bytes()[: 2 << 20]).hexdigest()  # scratch has been written to behind that
    shell.run("echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/vdd bs=64k count=32 2>/dev/null | md5sum > /tmp/s & a=$!")
    shell.run(
        "for i in 1 2 3; do dd if=/dev/vda of=/dev/vdc bs=4k seek=5700 count=50 conv=fsync; "
        "dd if=/dev/hwrng of=/dev/null bs=64 count=4; done 2>/dev/null & b=$!"
    )
    for _ in range(6):
        shell.monitor.exec("pc = vms['linux'].pc\nwith still: pc.load(pc.save())", timeout=240)
        time.sleep(random.random() / 5)
    assert shell.run("wait $a $b; cut -c1-32 /tmp/s").strip() == expected
    assert images[2].read_bytes()[5700 << 12 : 5750 << 12] == images[0].read_bytes()[: 50 << 12]
    shell.run("dd if=/dev/vde of=/dev/null bs=512 count=77 && dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct")
    assert shell.monitor.eval("vms['linux'].unclaimed()['refused']") == {}


def test_switched_off_it_forgets(shell, images, tmp_path):
    capture = network.capturing(shell, tmp_path / "last.pcapng")
    shell.console.send("poweroff\n")
    shell.monitor.console("repl").expect(rb"powered off by the guest", 240)
    assert shell.monitor.eval("vms['linux'].expansion.disks[0].changed") == 0
    free = shell.monitor.eval("monitor.pages.available")
    shell.monitor.exec("vms['linux'].destroy()")
    assert "the guest is gone" in capture.communicate(timeout=240)[1]
    assert shell.monitor.eval("monitor.pages.available") - free > 256 << 20
    assert shell.monitor.eval("monitor.scheduler.failures") == 0
