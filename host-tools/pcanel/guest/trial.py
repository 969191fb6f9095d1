"""A guest's images, loaded for trial: what the monitor's loaders refuse is refused before anything starts.

The loaders are the monitor's own (vmm/loaders); memory that they do not write takes none of this machine's.
"""

import mmap

from pcanel.errors import InputError
from pcanel.guest.file import Guest
from pcanel.vmm_import import importable

_MAP_NORESERVE = 0x4000  # linux/mman.h; the module mmap has no name for it yet
_RSDP = 0xE0000  # any address will do


class _Memory:
    """Guest memory as the loaders write it, from gpa 0 on."""

    def __init__(self, size: int):
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._data = mmap.mmap(-1, size, flags=flags)

    def write(self, gpa: int, data) -> None:
        self._data[gpa : gpa + len(data)] = data

    def close(self) -> None:
        self._data.close()


def check(guest: Guest) -> None:
    """Raises InputError in the words of the loader where the guest cannot be loaded. Firmware is not tried."""
    if guest.config["kernel"] is None:
        return
    paths = {blob.name: str(blob.content) for blob in guest.blobs}
    blobs = {str(blob.content): blob.content.read_bytes() for blob in guest.blobs}
    config = {**guest.config, "kernel": paths[guest.config["kernel"]]}
    config["initrd"] = paths.get(config["initrd"])
    config["modules"] = [[paths[name], string] for name, string in config["modules"]]
    with importable():
        from vmm.loaders import LoadError, load
        from vmm.memory.e820 import e820

        ranges = e820(guest.memory)
        memory = _Memory(max(base + size for base, size, _ in ranges))
        try:
            load(memory, config, blobs, ranges, _RSDP)
        except LoadError as error:
            raise InputError(f"{guest.path}: kernel: {error}") from error
        finally:
            memory.close()
