"""An initramfs for Debian's cloud kernel: modules of it, and a program of the bench."""

from collections.abc import Iterable
from pathlib import Path

from pcanel.errors import InputError
from pcanel.guest.initramfs import Archive
from pcanel.paths import BUILD

_MODULES = BUILD / "guests/cloud/lib/modules"
VIRTIO = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci")
BLK = ("virtio_mmio", "virtio_blk")
NET = ("failover", "net_failover", "virtio_net")
INSMOD = "for m in /m/*; do insmod $m; done"


def add_modules(archive: Archive, drivers: Iterable[str]) -> None:
    """/m/00.ko and so on, in the order in which they are to be loaded."""
    (kernel,) = _MODULES.glob("*/kernel")
    archive.add("m", 0o40755)
    for n, driver in enumerate(drivers):
        (path,) = kernel.rglob(f"{driver}.ko")
        archive.add(f"m/{n:02}.ko", 0o100644, path.read_bytes())


def with_program(drivers: Iterable[str], program: Path) -> bytes:
    """An initramfs to be appended to initrd.cpio: the modules, and the program in the root directory."""
    if not program.is_file():
        raise InputError(f"{program}: no such file (make guests builds it)")
    files = Archive()
    add_modules(files, drivers)
    files.add(program.name, 0o100755, program.read_bytes())
    return files.finish()
