"""Disk images that the engine gives its machine as disks.

The monitor knows each by its model: `pcanel-` and a part of the path's hash, so that guests that share an image share
its disk. A run holds flock() on each, exclusive where it is written to; the engine inherits the descriptor, so the lock
lasts as long as either lives.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pcanel.errors import InputError
from pcanel.vmm_import import importable

with importable():
    from vmm.disks import SECTOR

_QCOW2 = b"QFI\xfb"


@dataclass(frozen=True)
class Disk:
    """path: of a raw image, absolute; writable: whether a guest may write to it."""

    path: Path
    writable: bool

    @property
    def model(self) -> str:
        """The name of the disk: at most 20 characters, the length of an ATA serial number."""
        return f"pcanel-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}"

    def is_at(self, path: Path) -> bool:
        """Whether `path` names the same file, by whatever links."""
        return os.path.samefile(self.path, path)


def is_written_to(path: Path) -> bool:
    """Whether a run has this image to write to it."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def check(path: Path, writable: bool) -> str:
    """The reason why this file cannot be a disk; empty if it can."""
    if not path.is_file():
        return "is no file"
    with path.open("rb") as file:
        if file.read(4) == _QCOW2:
            return f"is a qcow2 image; `qemu-img convert -O raw {path} FILE` makes a raw one"
    size = path.stat().st_size
    if size % SECTOR:
        return f"has {size} bytes, which are no whole sectors of {SECTOR}: is it truncated?"
    if writable and not os.access(path, os.W_OK):
        return "may not be written to"
    return ""


def distinct(disks: Iterable[Disk]) -> list[Disk]:
    """Each image once."""
    found: dict[Path, Disk] = {}
    for disk in disks:
        before = found.get(disk.path)
        found[disk.path] = replace(disk, writable=disk.writable or bool(before and before.writable))
    return list(found.values())


class Locks:
    """Of the images of one run. `descriptors` are for the engine to inherit."""

    def __init__(self):
        self._files = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        return tuple(file.fileno() for file in self._files)

    def take(self, disks: Iterable[Disk]) -> None:
        """InputError where another run has one."""
        for disk in disks:
            try:
                file = disk.path.open("r+b" if disk.writable else "rb")
            except OSError as error:
                raise InputError(f"{disk.path}: {error.strerror}") from error
            self._files.append(file)
            try:
                fcntl.flock(file, (fcntl.LOCK_EX if disk.writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                how = "has it" if disk.writable else "writes to it"
                raise InputError(f"{disk.path}: another run {how}; an image that is written to has one run") from None

    def release(self) -> None:
        for file in self._files:
            file.close()
        self._files.clear()
