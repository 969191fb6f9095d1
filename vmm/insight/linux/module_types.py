"""Types of a kernel's modules: each has a BTF section that goes on where the kernel's own ends (split BTF).

The kernel keeps them on the list btf_modules, in memory that need not be contiguous: they are small, and copied.
Source: Linux, kernel/bpf/btf.c.
"""

import uctypes
from micropython import const

from vmm.insight import btf, objects, types

_LARGEST = const(1 << 20)  # bytes of a section
_MOST = const(64)  # sections kept


class _Copy:
    """Bytes in place of a vmm.memory.guest.GuestMemory, as far as a Btf needs it."""

    def __init__(self, data):
        self._data = data

    def read(self, at, size):
        return bytes(self._data[at : at + size])

    def hpa(self, at, size=1):
        return uctypes.addressof(self._data) + at


class ModuleTypes:
    """The Types of one kernel's modules, read when a type is looked up that the kernel itself does not have."""

    def __init__(self, kernel):
        self._kernel = kernel
        self._kept = {}  # (gva, bytes): Types

    def __call__(self):
        """Return the Types of each module that is loaded now and has a section."""
        kernel = self._kernel
        head = kernel.find("btf_modules")
        found = []
        kept = {}
        if head is not None:
            for entry in objects.entries(kernel.types, kernel.space, head, "struct btf_module", "list"):
                key = int(entry.btf.data), entry.btf.data_size
                known = self._kept.get(key)
                if known is None:
                    if key[1] > _LARGEST or len(found) >= _MOST:
                        continue
                    data = bytearray(kernel.space.read(key[0], key[1]))
                    section = btf.Btf(_Copy(data), int, 0, key[1], kernel.types.btf)
                    known = types.Types(section, kernel.types)
                kept[key] = known
                found.append(known)
        self._kept = kept
        return found
