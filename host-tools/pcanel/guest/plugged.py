"""What a guest file plugs into its machine: PCI devices of the user's own, disks.

reader: of pcanel.guest.file; attach(key, path, label): makes a boot module of a file that is not loaded into the
guest's memory, and returns its name.
"""

from pcanel import hostdisks
from pcanel.hostdisks import Disk
from pcanel.vmm_import import importable

with importable():
    from vmm.disks import checks

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
        key = f"disk[{number}].image"
        if disk["image"].startswith(checks.HOST):
            continue
        path = reader.file(key, disk["image"])
        writable = disk["mode"] == "rw"
        lack = hostdisks.check(path, writable)
        if lack:
            raise reader.error(key, f"{path}: {lack}")
        if writable or path.stat().st_size > _LARGE:
            if any(other.path == path and (writable or other.writable) for other in machines):
                raise reader.error(key, f"{path}: an image that is written to is one disk, not two")
            machines.append(Disk(path, writable))
            disk["image"] = checks.HOST + machines[-1].model
        else:
            disk["image"] = attach(key, disk["image"], f"disk{number}")
    return found


def cds(reader, attach) -> list[dict]:
    """CDs: `[[cd]]` tables with `image`."""
    found = reader.tables("cd", checks.cds)
    return [{"image": attach(f"cd[{n}].image", cd["image"], f"cd{n}")} for n, cd in enumerate(found)]
