"""Builds the guests' initramfs: Debian's static busybox and our init, as a cpio archive.

The format is "newc" (cpio(5)), which the kernel unpacks; device nodes are entries of
the archive, so no privilege is needed to make it, and all times are 0, so the same
input gives the same bytes.

A guest of another kind of machine takes its busybox from an unpacked package too.

Programs of an unpacked Debian package go in with the libraries that they name, which have to be in the
same tree.

usage: python -m pcanel.guest.initramfs [--busybox FILE] INIT ARCHIVE [TREE PROGRAM...]
"""

import stat
import subprocess
import sys
from pathlib import Path

from elftools.elf.elffile import ELFFile

from pcanel.errors import InputError

BUSYBOX = Path("/bin/busybox")
_TRAILER = "TRAILER!!!"
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "usr/bin", "usr/sbin")
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")
_PASSWD = b"root:x:0:0:root:/root:/bin/sh\n"


class Archive:
    """A cpio archive in the making; `add` takes the entries in order."""

    def __init__(self):
        self.data = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        """Adds one entry; `mode` has the type bits of stat(2), `device` major and minor."""
        self._inode += 1
        path = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
        self.data += b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self._pad()
        self.data += content
        self._pad()

    def finish(self) -> bytes:
        self.add(_TRAILER, 0)
        return bytes(self.data)

    def _pad(self) -> None:
        self.data += bytes(-len(self.data) % 4)


def applets() -> list[str]:
    """The paths, relative to /, at which this busybox is to be found. It is run, so it is this machine's."""
    done = subprocess.run([BUSYBOX, "--list-full"], capture_output=True, text=True, check=True)
    return sorted(set(done.stdout.split()))


def closure(tree: Path, programs: list[str]) -> dict[str, Path]:
    """{path in the guest: file} of programs below `tree` and of all that they load. Raises InputError."""
    found: dict[str, Path] = {}
    waiting = list(programs)
    while waiting:
        name = waiting.pop()
        candidates = [name] if "/" in name else [f"{directory}/{name}" for directory in _LIBRARIES]
        path = next((path for path in candidates if (tree / path).exists()), None)
        if path is None:
            raise InputError(f"{tree}: {name} is not there, and {programs[0]} needs it")
        if path in found:
            continue
        found[path] = tree / path
        with (tree / path).open("rb") as file:
            for segment in ELFFile(file).iter_segments():
                if segment["p_type"] == "PT_INTERP":
                    waiting.append(segment.get_interp_name().lstrip("/"))
                elif segment["p_type"] == "PT_DYNAMIC":
                    waiting += [tag.needed for tag in segment.iter_tags("DT_NEEDED")]
    return found


def build(init: Path, busybox: Path = BUSYBOX, programs: dict[str, Path] | None = None) -> bytes:
    """The archive. `init` is the script that becomes /init; `programs` {path: file} are what closure() found."""
    archive = Archive()
    add_system(archive, init, busybox)
    archive.add("etc/passwd", stat.S_IFREG | 0o644, _PASSWD)
    archive.add("etc/hostname", stat.S_IFREG | 0o644, b"linux\n")
    add_programs(archive, programs or {})
    return archive.finish()


def add_system(archive: Archive, init: Path, busybox: Path = BUSYBOX) -> None:
    """Adds directories, a console, busybox with its applets, and the script that becomes /init."""
    for name in _DIRECTORIES:
        archive.add(name, stat.S_IFDIR | 0o755)
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("dev/null", stat.S_IFCHR | 0o666, device=(1, 3))
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    for path in applets():
        if path.rpartition("/")[0] in _DIRECTORIES and path != "bin/busybox":
            archive.add(path, stat.S_IFLNK | 0o777, b"/bin/busybox")
    archive.add("init", stat.S_IFREG | 0o755, init.read_bytes())


def add_programs(archive: Archive, programs: dict[str, Path]) -> None:
    """Adds what closure() found, and the directories above it."""
    made = set(_DIRECTORIES)
    for path, file in sorted(programs.items()):
        for parent in [str(parent) for parent in reversed(Path(path).parents)][1:]:
            if parent not in made:
                archive.add(parent, stat.S_IFDIR | 0o755)
                made.add(parent)
        archive.add(path, stat.S_IFREG | 0o755, file.read_bytes())


def main() -> None:
    arguments = sys.argv[1:]
    busybox = BUSYBOX
    if arguments[0] == "--busybox":
        busybox = Path(arguments[1])
        del arguments[:2]
    init, target = (Path(argument) for argument in arguments[:2])
    tree, *names = arguments[2:] or [None]
    programs = closure(Path(tree), names) if names else {}
    target.write_bytes(build(init, busybox, programs))
    print(f"setup: {target}: {target.stat().st_size >> 10} KiB, busybox, {init} {' '.join(names)}")


if __name__ == "__main__":
    main()
