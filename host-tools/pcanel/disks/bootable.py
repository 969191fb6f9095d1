"""Disks that boot by BIOS: GRUB in front of the first partition, which is ext4.

Nothing is mounted and nothing needs root: the file system is made by mke2fs from a directory, GRUB by grub-mkimage.
GRUB's boot sector finds the rest of it in the sectors behind, as both have it by default, so that nothing is patched.
Source: GRUB 2.06, grub-core/boot/i386/pc.
"""

import shutil
import struct
import subprocess
from pathlib import Path

from pcanel.errors import InputError, PcanelError

SECTOR = 512
FIRST = 2048  # sector of the partition: 1 MiB, as installers do it
MODULES = ("biosdisk", "part_msdos", "ext2", "normal", "linux", "serial", "terminal", "echo", "configfile", "search",
           "reboot", "halt")  # fmt: skip
_GRUB = Path("/usr/lib/grub/i386-pc")
_BOOT_CODE = 440  # bytes of sector 0; then disk's id and partitions
_LINUX = 0x83
_CORE_MOST = (FIRST - 1) * SECTOR


def core(target: Path, prefix: str = "(hd0,msdos1)/boot/grub", modules=MODULES, config: str | None = None) -> Path:
    """Makes GRUB's core image at `target`. config: commands that it carries out first."""
    command = [_tool("grub-mkimage", "grub-common"), "-O", "i386-pc", "-p", prefix, "-o", str(target)]
    if config is not None:
        early = target.with_suffix(".cfg")
        early.write_text(config)
        command += ["-c", str(early)]
    run([*command, *modules], f"{target}: GRUB could not be made")
    return target


def write_boot(image: Path, core_image: Path, sectors: int, identity: int) -> None:
    """Puts boot sector, partition table and GRUB into `image`, a disk of that many sectors."""
    grub = core_image.read_bytes()
    if len(grub) > _CORE_MOST or sectors <= FIRST:
        raise InputError(f"{image}: {sectors * SECTOR} bytes have no room for GRUB")
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", _LINUX, b"\xfe\xff\xff", FIRST, sectors - FIRST)
    boot = (_GRUB / "boot.img").read_bytes()[:_BOOT_CODE] + struct.pack("<IH", identity, 0) + entry
    with image.open("r+b") as file:
        file.write(boot.ljust(SECTOR - 2, b"\0") + b"\x55\xaa" + grub)


def make(image: Path, tree: Path, size: int, uuid: str, prefix: tuple[str, ...] = ()) -> None:
    """Writes a disk of `size` bytes whose partition has the files of `tree`.

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
    write_boot(image, made, sectors, int(uuid[:8], 16))
    made.unlink()


def _tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        raise PcanelError(f"{name} is missing (Debian: apt-get install {package})")
    return found


def run(command: list[str], what: str, **options) -> None:
    """Runs a program; PcanelError with its last words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise PcanelError(f"{what}: {words[-1] if words else f'status {done.returncode}'}")
