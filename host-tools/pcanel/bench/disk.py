"""What a Linux guest's requests to its disks take: guests/exitbench/disk.c in Debian's cloud kernel.

The disks are an image in memory, on each transport, and one that is a disk of the machine. QEMU's figures are of one
measurement: QEMU 7.2 with KVM in the same Bochs, the same kernel as guest, virtio-blk and a raw file in the page cache
of the outer system; a whole QEMU in the outer system takes too long for each run of the bench.
"""

import re
import tempfile
from pathlib import Path

from pcanel.bench import modules
from pcanel.bench.monitored import UNMITIGATED
from pcanel.engines.choose import choose
from pcanel.errors import PcanelError
from pcanel.monitor import Monitor
from pcanel.paths import BUILD

_PROGRAM = BUILD / "guests/exitbench/disk"
_TIMEOUT = 900  # seconds
_IMAGE = 32 << 20
_MIB = 1 << 20
# Row: (device, what, bytes, count)
RUNS = {
    "disk_read": ("vda", "read", 4096, 500),
    "disk_read_64k": ("vda", "read", 65536, 200),
    "disk_sequential": ("vda", "sequential", 65536, 200),
    "disk_fsync": ("vda", "fsync", 4096, 200),
    "disk_mmio_read": ("vdc", "read", 4096, 500),
    "disk_host_sequential": ("vdb", "sequential", 65536, 200),
    "disk_host_read": ("vdb", "read", 4096, 60),
    "disk_host_fsync": ("vdb", "fsync", 4096, 60),
}
# Ticks, QEMU 7.2 with KVM; natively, Linux's ata_piix with PIO.
KVM_ONCE = {
    "disk_read": 68116,
    "disk_read_64k": 124691,
    "disk_sequential": 2_060_000,
    "disk_fsync": 71853,
    "disk_mmio_read": 106564,
}
NATIVE_ONCE = {"disk_host_sequential": 2_690_000, "disk_host_read": 153785}
_SAID = re.compile(r"^disk: /dev/(\w+) (\w+) (\d+): (\d+) (\d+) (\d+)\s*$", re.MULTILINE)


def monitored(cpu: str | None = None) -> dict[str, int]:
    """Row -> ticks (median of a request; of sequential ones, a MiB)."""
    files = modules.with_program(modules.VIRTIO + modules.BLK, _PROGRAM)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        (directory / "initrd").write_bytes((BUILD / "guests/initrd.cpio").read_bytes() + files)
        for image in ("memory", "host"):
            with (directory / image).open("wb") as file:
                file.truncate(_IMAGE)
        file = directory / "linux.toml"
        file.write_text(
            f'memory = "256M"\nprotocol = "linux"\nkernel = "{BUILD}/guests/cloud.vmlinux"\ninitrd = "initrd"\n'
            'cmdline = "console=ttyS0 quiet mitigations=off cryptomgr.notests"\n'
            '[[disk]]\nimage = "memory"\n[[disk]]\nimage = "host"\nmode = "rw"\n'
            '[[disk]]\nimage = "memory"\ntransport = "virtio-mmio"\n'
        )
        monitor = Monitor(cpu=cpu, guests=[file], cmdline=UNMITIGATED)
        monitor.choice = choose("bochs")
        with monitor:
            console = monitor.console("linux")
            console.expect(rb"linux:~# ", _TIMEOUT)
            console.send("stty cols 1000; " + modules.INSMOD + "\n")
            for row, (device, what, size, count) in RUNS.items():
                console.send(f"/disk /dev/{device} {what} {size} {count}; echo done {row}\n")
                console.expect(f"^done {row}", _TIMEOUT)
            said = console.text()
    return _figures(said)


def _figures(said: str) -> dict[str, int]:
    found = {(m[1], m[2], int(m[3])): int(m[4]) for m in _SAID.finditer(said)}
    rows = {}
    for row, (device, what, size, _) in RUNS.items():
        if (device, what, size) not in found:
            raise PcanelError(f"the guest's program has not said what {what} of {device} takes\n{said[-2000:]}")
        ticks = found[device, what, size]
        rows[row] = ticks * _MIB // size if what == "sequential" else ticks
    return rows
