"""Segment descriptors, for handlers that load them for the CPU.

`memory` is a vmm.memory.linear.Linear, loaded. Source: SDM Vol. 3A, "Segment Descriptors", "System Descriptor Types".
"""

import struct

from micropython import const

from vmm.memory.linear import SEGMENTS
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT
from vmm.vtx.vmcs_bits import RIGHTS_DPL_SHIFT, RIGHTS_P, RIGHTS_S, RIGHTS_UNUSABLE

NAMES = SEGMENTS


LDT = const(2)
BUSY = const(2)  # of the type of a TSS descriptor
V8086 = const(0xF3)  # rights of each segment in virtual-8086 mode
TSS_16, TSS_16_BUSY, TSS_32, TSS_32_BUSY = 1, 3, 9, 11

TI = const(4)  # of a selector
_G = const(1 << 23)  # of a descriptor's second word: the limit counts pages


def fields(low, high):
    """(base, limit in bytes, rights in VMCS format) of a descriptor's two words."""
    limit = high & 0xF0000 | low & 0xFFFF
    if high & _G:
        limit = limit << 12 | 0xFFF
    return low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000, limit, high >> 8 & 0xF0FF


class Descriptor:
    """A descriptor at a gva: base, limit in bytes, rights in VMCS format.

    upper: the second half of a 16-byte system descriptor in IA-32e mode, else None.
    """

    def __init__(self, memory, gva, wide=False):
        low, high = struct.unpack("<II", memory.read(gva, 8))
        self.gva = gva
        self.base, self.limit, self.rights = fields(low, high)
        self.upper = None
        if wide:
            base, self.upper = struct.unpack("<II", memory.read(gva + 8, 8))
            self.base |= base << 32

    @property
    def type(self):
        """The type, bits 3:0 of the rights; its meaning depends on `system`."""
        return self.rights & 0xF

    @property
    def system(self):
        """Whether it is an LDT, TSS or gate, not code or data."""
        return not self.rights & RIGHTS_S

    @property
    def dpl(self):
        return self.rights >> RIGHTS_DPL_SHIFT & 3

    @property
    def present(self):
        return bool(self.rights & RIGHTS_P)

    def mark(self, memory, bits):
        """Set bits of the type (accessed, busy) in this object and in memory."""
        if self.rights & bits != bits:
            self.rights |= bits
            memory.write(self.gva + 5, bytes((self.rights & 0xFF,)))


def find(vcpu, memory, selector, wide=False):
    """Return the Descriptor of a selector, or None if it is null or beyond the limit of its table."""
    if not selector & 0xFFFC:
        return None
    offset = selector & 0xFFF8
    if selector & TI:
        _, base, limit, rights = vcpu.segment("ldtr")
        if rights & RIGHTS_UNUSABLE:
            return None
    else:
        base, limit = vcpu.read(GUEST_GDTR_BASE), vcpu.read(GUEST_GDTR_LIMIT)
    if offset + (15 if wide else 7) > limit:
        return None
    return Descriptor(memory, base + offset, wide)
