"""What a guest file plugs into its machine: PCI devices of the user's own, disks.

reader: of pcanel.guest.file; attach(key, path, label): makes a boot module of a file that is not loaded into the
guest's memory, and returns its name.
"""

import struct
from pathlib import Path

from pcanel import hostdisks
from pcanel.hostdisks import Disk
from pcanel.vmm_import import importable

with importable():
    from vmm.disks import checks

_SIGNATURE_AT, _LENGTH_AT = 40, 48  # in the header of a firmware volume
_BLOCK = 4096  # what the flash of variables erases at once
_LARGE = 32 << 20  # bytes of an image that is a disk of the machine, and no boot module


def devices(reader, attach) -> list[list[str]]:
    """PCI devices of the user's own: "FILE.py:CLASS"."""
    found = []
    what = 'a list of "FILE.py:CLASS"'
    for number, entry in enumerate(reader.take("devices", list, what, [])):
        file, colon, name = entry.rpartition(":") if isinstance(entry, str) else ("", "", "")
        if not (file and colon and name.isidentifier()):
            raise reader.error("devices", f"must be {what}; entry {number} is {entry!r}")
        path = reader.file("devices", file)
        try:
            compile(path.read_bytes(), str(path), "exec")
        except (SyntaxError, ValueError) as error:
            raise reader.error("devices", f"{path}: {error}") from error
        found.append([attach("devices", file, f"device{number}"), name])
    return found


def disks(reader, attach, machines: list[Disk]) -> list[dict]:
    """Disks: `[[disk]]` tables with `image`, and optionally `mode`, `transport`, `limit`.

    machines: gets the images that are to be disks of the machine: those that are written to, and large ones."""
    defaults = {"mode": "scratch", "transport": "virtio-pci"}
    found = reader.tables("disk", checks.disks, defaults, sized="limit")
    for number, disk in enumerate(found):
        if not disk["image"].startswith(checks.HOST):
            key, writable = f"disk[{number}].image", disk["mode"] == "rw"
            disk["image"] = _place(reader, attach, machines, key, disk["image"], writable, f"disk{number}")
    return found


def _place(reader, attach, machines: list[Disk], key: str, image: str, writable: bool, label: str) -> str:
    """The monitor's name of an image that is a disk of the machine or a boot module."""
    path = reader.file(key, image)
    lack = hostdisks.check(path, writable)
    if lack:
        raise reader.error(key, f"{path}: {lack}")
    if any(other.is_at(path) and (writable or other.writable) for other in machines):
        raise reader.error(key, f"{path}: an image that is written to is one disk, not two")
    if not writable and path.stat().st_size <= _LARGE:
        if hostdisks.is_written_to(path):
            raise reader.error(key, f"{path}: another run writes to it; an image that is written to has one run")
        return attach(key, image, label)
    machines.append(Disk(path, writable))
    return checks.HOST + machines[-1].model


def variables(reader, attach, machines: list[Disk], template: str | None) -> dict:
    """`variables = "FILE"`: where UEFI firmware keeps its variables. template: what they are without that key, for each
    run anew; None: this firmware has none.

    The file is a boot module, which the firmware begins with, and a disk of the machine, which changes go to."""
    given = reader.take("variables", str, "a path")
    if template is None:
        if given is not None:
            raise reader.error("variables", "has a meaning for protocol uefi only")
        return {"variables": None, "variables_disk": None}
    path = reader.file("variables", given or template)
    if path.stat().st_size % _BLOCK:
        raise reader.error("variables", f"{path}: has {path.stat().st_size} bytes, which are no variable store")
    if not _is_store(path):
        raise reader.error("variables", f"{path}: is no variable store, or a broken one; {template} is a new one")
    disk = None
    if given is not None:
        lack = hostdisks.check(path, True)
        if lack:
            raise reader.error("variables", f"{path}: {lack}")
        disk = Disk(path, True)
        if any(other.is_at(path) for other in machines):
            raise reader.error("variables", f"{path}: is a [[disk]], too")
        machines.append(disk)
    return {
        "variables": attach("variables", given or template, "variables"),
        "variables_disk": disk.model if disk else None,
    }


def _is_store(path: Path) -> bool:
    """Whether firmware can begin with this file: a firmware volume (UEFI PI 1.7, Vol. 3, 3.2.1), or zeros, of which
    OVMF makes one. With anything else, an erased flash too, it ends in an exception of its own."""
    with path.open("rb") as file:
        head = file.read(_BLOCK)
    if not head.strip(b"\0"):
        return True
    (size,) = struct.unpack_from("<H", head, _LENGTH_AT)
    if head[_SIGNATURE_AT : _LENGTH_AT - 4] != b"_FVH" or size % 2 or not _LENGTH_AT < size <= len(head):
        return False
    return sum(struct.unpack_from(f"<{size // 2}H", head)) & 0xFFFF == 0


def cds(reader, attach, machines: list[Disk]) -> list[dict]:
    """CDs: `[[cd]]` tables with `image`. machines: as for disks()."""
    found = reader.tables("cd", checks.cds)
    for number, cd in enumerate(found):
        cd["image"] = _place(reader, attach, machines, f"cd[{number}].image", cd["image"], False, f"cd{number}")
    return found
