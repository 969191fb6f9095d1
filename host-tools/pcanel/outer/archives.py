"""What the outer system is made of: cpio archives under build/outer, which the kernel unpacks one over the other.

`system.cpio` has busybox, the init script and KVM's modules; `qemu.cpio` has Debian's
QEMU. They are made again when one of the files that they come from is newer.
"""

import os
import re
import stat
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import lz4.block

from pcanel.errors import PcanelError
from pcanel.guest.initramfs import BUSYBOX, Archive, add_system
from pcanel.guest.vmlinux import LZ4_BLOCK, LZ4_LEGACY
from pcanel.paths import BUILD

KERNEL = BUILD / "guests/cloud.bzImage"
_TREE = BUILD / "guests/cloud/lib/modules"
# Its own disks, in the order in which they are loaded.
_DISKS = ("scsi/scsi_common", "scsi/scsi_mod", "scsi/sd_mod", "ata/libata", "ata/ata_piix")
_INIT = Path(__file__).with_name("init")
_MODULES = ("virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-intel.ko")
_ELF = b"\x7fELF"

QEMU = Path("/usr/bin/qemu-system-x86_64")
_FIRMWARE = tuple(Path("/usr/share/qemu") / name for name in ("kvmvapic.bin", "linuxboot_dma.bin", "multiboot_dma.bin"))
_BIOS = Path("/usr/share/seabios/bios-256k.bin")


def system() -> Path:
    """The archive with busybox and KVM, made if need be."""
    modules = {f"modules/{Path(path).name}": _module(path) for path in _MODULES}

    def fill(archive: Archive) -> None:
        add_system(archive, _INIT)
        add_files(archive, modules)

    return _kept("system.cpio", [_INIT, BUSYBOX, *modules.values()], fill)


def disk_drivers() -> dict[str, Path]:
    """The modules that the outer system has disks by, {path: file}; sorted by name they are in their order."""
    return {f"/modules/disks/{n}.ko": _module(f"drivers/{path}.ko") for n, path in enumerate(_DISKS)}


def qemu() -> Path:
    """The archive with QEMU, its libraries and its firmware, made if need be."""
    files = {str(path): path for path in (QEMU, *_FIRMWARE)}
    files["usr/share/qemu/bios-256k.bin"] = _BIOS
    for path in files.values():
        if not path.is_file():
            raise PcanelError(f"{path} is missing (Debian: apt-get install qemu-system-x86 seabios)")
    return _kept("qemu.cpio", files.values(), lambda archive: add_files(archive, files))


def pack(files: Mapping[str, bytes | Path]) -> bytes:
    """An archive with files by their paths; see add_files."""
    archive = Archive()
    add_files(archive, files)
    return archive.finish()


def compress(data: bytes) -> bytes:
    """LZ4's legacy format, for the kernel: GRUB takes ten ticks to load a byte, the kernel one to unpack it."""
    blocks = [
        lz4.block.compress(data[start : start + LZ4_BLOCK], store_size=False)
        for start in range(0, len(data), LZ4_BLOCK)
    ]
    return LZ4_LEGACY + b"".join(struct.pack("<I", len(block)) + block for block in blocks)


def add_files(archive: Archive, files: Mapping[str, bytes | Path]) -> None:
    """Adds files by their paths. A host's program brings the libraries that it is linked with.

    Bytes that start with `#!` or are an ELF file can be executed; a file has its own mode.
    """
    everything = {path.lstrip("/"): content for path, content in files.items()}
    for content in list(everything.values()):
        if isinstance(content, Path):
            everything.update((str(library).lstrip("/"), library) for library in _libraries(content))
    for directory in sorted({parent for path in everything for parent in Path(path).parents} - {Path()}):
        archive.add(str(directory), stat.S_IFDIR | 0o755)
    for path, content in everything.items():
        data = content if isinstance(content, bytes) else content.read_bytes()
        if isinstance(content, bytes):
            executable = content.startswith((b"#!", _ELF))
        else:
            executable = bool(content.stat().st_mode & stat.S_IXUSR)
        archive.add(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def _libraries(program: Path) -> list[Path]:
    """The shared libraries and the loader that ldd(1) names; none for what is no dynamic program."""
    with program.open("rb") as file:
        if file.read(4) != _ELF:
            return []
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    lost = re.findall(r"(\S+) => not found", done.stdout)
    if lost:
        raise PcanelError(f"{program} needs {', '.join(lost)}, which this machine does not have")
    return [Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE)]


def _module(path: str) -> Path:
    found = list(_TREE.glob(f"*/kernel/{path}"))
    if not found or not KERNEL.is_file():
        raise PcanelError(f"{KERNEL} and its modules are not there yet (make guests)")
    return found[0]


def _kept(name: str, sources: Iterable[Path], fill: Callable[[Archive], None]) -> Path:
    target = BUILD / "outer" / name
    if not target.exists() or any(source.stat().st_mtime > target.stat().st_mtime for source in sources):
        target.parent.mkdir(parents=True, exist_ok=True)
        archive = Archive()
        fill(archive)
        fresh = target.with_suffix(f".{os.getpid()}")  # another run may be making it too
        fresh.write_bytes(archive.finish())
        fresh.replace(target)
    return target
