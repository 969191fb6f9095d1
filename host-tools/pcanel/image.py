"""Boot media: a GRUB rescue ISO with the monitor and its boot modules.

GRUB starts the image by Multiboot 2. A full ISO boots by BIOS and by UEFI, from a
disc or a USB stick, and talks on the screen and on COM1; a lean one is what a run
on an engine needs (BIOS only, silent) and is made in a fraction of a second.

usage: python -m pcanel.image ELF ISO
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pcanel.errors import InputError, PcanelError
from pcanel.modules import BootModule

_LEAN_MODULES = "biosdisk iso9660 multiboot2 normal"

_FULL_HEAD = """\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=2
"""

_LEAN_HEAD = """\
terminal_output console
set timeout=0
"""


def grub_config(modules: list[BootModule], cmdline: str, lean: bool) -> str:
    """GRUB's configuration for an image with these modules, numbered in their order."""
    lines = [_LEAN_HEAD if lean else _FULL_HEAD, 'menuentry "Pcanel/Py" {']
    lines.append(f"    multiboot2 /boot/pcanel.elf {_quote(cmdline) if cmdline else ''}".rstrip())
    for number, module in enumerate(modules):
        lines.append(f"    module2 /boot/modules/{number} {_quote(module.name)}")
    lines.append("}\n")
    return "\n".join(lines)


def make_iso(elf: Path, modules: list[BootModule], iso: Path, cmdline: str = "", lean: bool = False) -> None:
    """Writes the ISO. Raises PcanelError with grub-mkrescue's words if that fails."""
    if not elf.is_file():
        raise InputError(f"{elf}: no such image (make all builds it)")
    tool = shutil.which("grub-mkrescue")
    if tool is None:
        raise PcanelError("grub-mkrescue is missing (Debian: apt-get install grub-common xorriso mtools)")
    iso.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=iso.parent, prefix="iso-") as name:
        tree = Path(name)
        (tree / "boot/grub").mkdir(parents=True)
        (tree / "boot/modules").mkdir()
        (tree / "boot/grub/grub.cfg").write_text(grub_config(modules, cmdline, lean))
        _place(elf, tree / "boot/pcanel.elf")
        for number, module in enumerate(modules):
            module.write(tree / f"boot/modules/{number}")
        command = [tool, "-o", str(iso), "--locales=", "--themes=", "--fonts="]
        if lean:
            command += ["-d", "/usr/lib/grub/i386-pc", f"--install-modules={_LEAN_MODULES}"]
        done = subprocess.run([*command, "-f", str(tree)], capture_output=True, text=True)
        if done.returncode != 0:
            raise PcanelError(f"grub-mkrescue failed:\n{done.stderr}")


def _place(source: Path, target: Path) -> None:
    target.symlink_to(source.resolve())


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    elf, iso = (Path(argument) for argument in sys.argv[1:3])
    make_iso(elf, [], iso)
    print(f"{iso}: boots by BIOS and UEFI ({iso.stat().st_size >> 20} MiB)")


if __name__ == "__main__":
    main()
