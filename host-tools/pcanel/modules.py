"""Boot modules: what the boot loader puts into memory beside the monitor.

The first word of a module's string is its name, and it is the only word here, so
that every loader hands over the same string: GRUB passes the words behind the file's
path, QEMU passes the file's path itself, and so is given paths that are the names.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from pcanel.errors import InputError
from pcanel.paths import lack_of

_NAME_MAX = 120  # bytes


@dataclass(frozen=True)
class BootModule:
    """A named blob: the bytes themselves, or the file that has them."""

    name: str
    content: bytes | Path

    def __post_init__(self):
        if not self.name or any(c.isspace() or not c.isprintable() for c in self.name):
            raise InputError(f"boot module {self.name!r}: a name is one word without spaces")
        if len(self.name.encode()) > _NAME_MAX:
            raise InputError(f"boot module {self.name!r}: the name is longer than {_NAME_MAX} bytes")
        lack = lack_of(self.content) if isinstance(self.content, Path) else None
        if lack:
            raise InputError(f"boot module {self.name}: {self.content}: {lack}")

    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def write(self, target: Path) -> None:
        """Puts the content at `target`: bytes as a file, a file by a link to it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            target.write_bytes(self.content)
        else:
            target.symlink_to(self.content.resolve())


def lay_out(modules: list[BootModule], directory: Path) -> list[str]:
    """Puts the modules under `directory` so that each one's relative path is its name."""
    check_paths(modules)
    for module in modules:
        module.write(directory / module.name)
    return [module.name for module in modules]


def check_paths(modules: list[BootModule]) -> None:
    """Refuses a name that is no plain relative path, as QEMU needs it."""
    for module in modules:
        path = os.path.normpath(module.name)
        if module.name.startswith("/") or path != module.name or path.split("/")[0] == "..":
            raise InputError(f"boot module {module.name!r}: QEMU wants a name that is a plain relative path")


def policy(path: Path) -> BootModule:
    """The boot module of a policy file: Python source that runs before the guests start."""
    lack = lack_of(path)
    if lack:
        raise InputError(f"--policy: {path}: {lack}")
    try:
        compile(path.read_bytes(), str(path), "exec")
    except (SyntaxError, ValueError) as error:
        raise InputError(f"--policy: {path}: {error}") from error
    return BootModule(f"policy:{path.name.replace(' ', '_')}", path)


def check_names(modules: list[BootModule]) -> None:
    """Refuses two modules of one name."""
    seen: set[str] = set()
    for module in modules:
        if module.name in seen:
            raise InputError(f"boot module {module.name!r} is given twice")
        seen.add(module.name)
