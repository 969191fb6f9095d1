"""Disks that boot by BIOS and by UEFI: GRUB in front of the first partition, which is ext4, and GRUB as an EFI program
on an EFI System Partition in front of that.

Nothing is mounted and nothing needs root: the file systems are made by mke2fs from a directory and by mtools, GRUB by
grub-mkimage. GRUB's boot sector finds the rest of it in the sectors behind, as both have it by default, so that nothing
is patched. Sources: GRUB 2.06, grub-core/boot/i386/pc; UEFI specification, "System Partition".
"""

import shutil
import struct
from pathlib import Path

from pcanel.errors import InputError, PcanelError
from pcanel.programs import run
from pcanel.vmm_import import importable

with importable():
    from vmm.disks import SECTOR

EFI_FIRST = 2048  # sector of the EFI System Partition: 1 MiB, as installers do it
EFI_SECTORS = 16384
FIRST = EFI_FIRST + EFI_SECTORS  # of the root, which is the last on the disk, so that it may grow
MODULES = ("part_msdos", "ext2", "normal", "linux", "serial", "terminal", "echo", "configfile", "search",
           "search_fs_uuid", "test", "reboot", "halt")  # fmt: skip
BIOS_MODULES = ("biosdisk", *MODULES)
EFI_MODULES = ("fat", *MODULES)
PREFIX = "/boot/grub"
_ROOT = "(hd0,msdos1)"
_GRUB = Path("/usr/lib/grub/i386-pc")
_REMOVABLE = "EFI/BOOT/BOOTX64.EFI"  # what firmware starts where no variable names anything
_BOOT_CODE = 440  # bytes of sector 0; then disk's id and partitions
_LINUX = 0x83
_EFI = 0xEF
_CORE_MOST = (EFI_FIRST - 1) * SECTOR


def core(target: Path, prefix: str = _ROOT + PREFIX, modules=BIOS_MODULES, config: str | None = None,
         form: str = "i386-pc") -> Path:  # fmt: skip
    """Makes GRUB's core image at `target`. config: commands that it carries out first; form: of grub-mkimage."""
    command = [_tool("grub-mkimage", "grub-common"), "-O", form, "-p", prefix, "-o", str(target)]
    if config is not None:
        early = target.with_suffix(".cfg")
        early.write_text(config)
        command += ["-c", str(early)]
    run([*command, *modules], f"{target}: GRUB could not be made")
    return target


def write_boot(image: Path, core_image: Path, sectors: int, identity: int, efi: bool = False) -> None:
    """Puts boot sector, partition table and GRUB into `image`, a disk of that many sectors.

    efi: the second entry is the EFI System Partition, which lies in front of the first entry's."""
    grub = core_image.read_bytes()
    first = FIRST if efi else EFI_FIRST
    if len(grub) > _CORE_MOST or sectors <= first:
        raise InputError(f"{image}: {sectors * SECTOR} bytes have no room for GRUB")
    entries = _entry(0x80, _LINUX, first, sectors - first)
    if efi:
        entries += _entry(0, _EFI, EFI_FIRST, EFI_SECTORS)
    boot = (_GRUB / "boot.img").read_bytes()[:_BOOT_CODE] + struct.pack("<IH", identity, 0) + entries
    with image.open("r+b") as file:
        file.write(boot.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + grub)


def _entry(active: int, kind: int, first: int, sectors: int) -> bytes:
    """Of the partition table, by sector numbers."""
    return struct.pack("<B3sB3sII", active, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", first, sectors)


def write_efi(image: Path, program: Path) -> None:
    """Makes the EFI System Partition: FAT, and `program` under the name that every firmware looks for."""
    place = f"{image}@@{EFI_FIRST * SECTOR}"
    what = f"{image}: the EFI System Partition could not be made"
    run([_tool("mformat", "mtools"), "-i", place, "-T", str(EFI_SECTORS), "-v", "EFI", "::"], what)
    folder, _ = _REMOVABLE.rsplit("/", 1)
    run([_tool("mmd", "mtools"), "-i", place, "::EFI", f"::{folder}"], what)
    run([_tool("mcopy", "mtools"), "-i", place, str(program), f"::{_REMOVABLE}"], what)


def make(image: Path, tree: Path, size: int, uuid: str, prefix: tuple[str, ...] = ()) -> None:
    """Writes a disk of `size` bytes whose first partition has the files of `tree`.

    prefix: what mke2fs is started by, such as fakeroot.
    """
    sectors = size // SECTOR
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate(sectors * SECTOR)
    blocks = f"{(sectors - FIRST) * SECTOR >> 10}k"
    options = ["-q", "-F", "-t", "ext4", "-U", uuid, "-E", f"offset={FIRST * SECTOR},hash_seed={uuid}"]
    # GRUB 2.06 reads no newer features.
    options += ["-O", "^metadata_csum_seed,^orphan_file", "-m", "1"]
    run([*prefix, _tool("mke2fs", "e2fsprogs"), *options, "-d", str(tree), str(image), blocks],
        f"{image}: mke2fs failed")  # fmt: skip
    made = core(image.with_suffix(".core"))
    write_boot(image, made, sectors, int(uuid[:8], 16), efi=True)
    # Firmware numbers its disks as it likes: the root is found by its identity.
    find = f"search --no-floppy --fs-uuid --set=root {uuid}\nset prefix=($root){PREFIX}\n"
    write_efi(image, core(made, PREFIX, EFI_MODULES, find, "x86_64-efi"))
    made.unlink()
    made.with_suffix(".cfg").unlink()


def _tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise PcanelError(f"{name} is missing (Debian: apt-get install {package})")
    return found
