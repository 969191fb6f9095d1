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

from pcanel import programs
from pcanel.errors import InputError, PcanelError
from pcanel.modules import BootModule

_LEAN_MODULES = "biosdisk iso9660 normal"

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
    """Writes the ISO with the monitor. Raises PcanelError with grub-mkrescue's words if that fails."""
    if not elf.is_file():
        raise InputError(f"{elf}: no such image (make all builds it)")
    files = {f"boot/modules/{number}": module.content for number, module in enumerate(modules)}
    config = grub_config(modules, cmdline, lean)
    burn(iso, config, {"boot/pcanel.elf": elf, **files}, "multiboot2" if lean else None)


def make_linux_iso(kernel: Path, initrds: list[Path | bytes], iso: Path, cmdline: str) -> None:
    """Writes a lean ISO that boots a bzImage; the kernel sees the archives of `initrds` as one."""
    files: dict[str, Path | bytes] = {f"boot/initrd{number}": content for number, content in enumerate(initrds)}
    lines = [_LEAN_HEAD, "menuentry Linux {", f"    linux /boot/vmlinuz {cmdline}"]
    lines += [f"    initrd {' '.join('/' + path for path in files)}", "}\n"]
    burn(iso, "\n".join(lines), {"boot/vmlinuz": kernel, **files}, "linux")


def burn(iso: Path, config: str, files: dict[str, Path | bytes], loaders: str | None = None) -> None:
    """Writes an ISO with GRUB, its configuration and files; lean where `loaders` names GRUB's modules that boot."""
    tool = shutil.which("grub-mkrescue")
    if tool is None:
        raise PcanelError("grub-mkrescue is missing (Debian: apt-get install grub-common xorriso mtools)")
    iso.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=iso.parent, prefix="iso-") as name:
        tree = Path(name)
        for path, content in {**files, "boot/grub/grub.cfg": config.encode()}.items():
            _place(content, tree / path)
        command = [tool, "-o", str(iso), "--locales=", "--themes=", "--fonts="]
        if loaders:
            command += ["-d", "/usr/lib/grub/i386-pc", f"--install-modules={_LEAN_MODULES} {loaders}"]
        done = programs.call([*command, "-f", str(tree)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise PcanelError(f"{iso}: grub-mkrescue failed: {_cause(done.stderr)}")


def _cause(said: str) -> str:
    """xorriso's own word about a failure, such as a full disk, out of some 20 lines; all of them where it has none."""
    causes = [line.partition(": FAILURE : ")[2] for line in said.splitlines() if ": FAILURE : " in line]
    return causes[0] if causes else f"\n{said}"


def _place(content: Path | bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        target.symlink_to(content.resolve())


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def main() -> None:
    elf, iso = (Path(argument) for argument in sys.argv[1:3])
    make_iso(elf, [], iso)
    print(f"{iso}: boots by BIOS and UEFI ({iso.stat().st_size >> 20} MiB)")


if __name__ == "__main__":
    main()
