"""Segment descriptors, and guest memory as the CPU reaches it by itself.

For handlers that finish what the CPU leaves to the monitor: task switches, loads of
descriptor tables. Limits: alignment checks and protection keys are not made. Source: SDM
Vol. 3A, "Segment Descriptors", "System Descriptor Types", "Limit Checking".
"""

import struct

from micropython import const

from vmm.memory import paging
from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_GDTR_LIMIT

NAMES = ("es", "cs", "ss", "ds", "fs", "gs")  # in the order of their encoding

# Access rights in VMCS format
ACCESSED = const(1)
WRITABLE = const(2)  # of data; code: readable
EXPAND_DOWN = const(4)  # of data; code: conforming
CODE = const(8)
S = const(1 << 4)
P = const(1 << 7)
DB = const(1 << 14)
UNUSABLE = const(1 << 16)

LDT = const(2)
TSS_16, TSS_16_BUSY, TSS_32, TSS_32_BUSY = 1, 3, 9, 11

_TI = const(4)
_PAGE = const(0x1000)


class Fault(Exception):
    """An exception for the guest: vector, error code, and for #PF the gva that goes to CR2."""

    def __init__(self, vector, error=0, gva=0):
        super().__init__(vector, error)
        self.vector = vector
        self.error = error
        self.gva = gva

    def inject(self, vcpu):
        """Deliver it at the next entry; a verdict."""
        if self.vector == events.PF:
            vcpu.cr2 = self.gva
        return events.inject(vcpu, self.vector, self.error)


class Linear:
    """Guest memory by linear address.

    `access` is that of vmm.paging: 0 and WRITE are the CPU's own, supervisor accesses. What
    cannot be translated raises Fault before anything is written. ValueError: the guest's
    paging structures lie outside its memory.
    """

    def __init__(self, walker, read, write):
        """walker: a vmm.paging.Walker, loaded; read(gpa, size) -> bytes; write(gpa, bytes)."""
        self._walker = walker
        self._read = read
        self._write = write

    def _pieces(self, gva, size, access):
        """[(gpa, size), ...] of a range, page by page."""
        out = []
        while size:
            if self._walker.mode < 48:
                gva &= 0xFFFFFFFF
            gpa = self._walker.translate(gva, access)
            if gpa < 0:
                self._refuse(gva, gpa)
            piece = min(size, _PAGE - (gva & (_PAGE - 1)))
            out.append((gpa, piece))
            gva += piece
            size -= piece
        return out

    @staticmethod
    def _refuse(gva, answer):
        if answer == paging.NOT_CANONICAL:
            raise Fault(events.GP)
        if answer == paging.UNBACKED:
            raise ValueError("paging structures of gva %#x are outside guest memory" % gva)
        raise Fault(events.PF, ~answer, gva)

    def touch(self, gva, size, access):
        """Raise what an access would raise."""
        self._pieces(gva, size, access)

    def read(self, gva, size, access=0):
        """Return `size` bytes."""
        return b"".join([self._read(gpa, piece) for gpa, piece in self._pieces(gva, size, access)])

    def write(self, gva, data, access=0):
        """Write bytes."""
        at = 0
        for gpa, piece in self._pieces(gva, len(data), access | paging.WRITE):
            self._write(gpa, data[at : at + piece])
            at += piece

    def read_word(self, gva):
        """Return the 16-bit word at gva."""
        return struct.unpack("<H", self.read(gva, 2))[0]


def linear(vcpu):
    """Return Linear for the vCPU's present mode. After a change of CR0, CR3, CR4: ask again."""
    vm = vcpu.vm
    return Linear(vm.load_walker(vcpu), vm.physical_read, vm.physical_write)


class Descriptor:
    """A descriptor and where it lies: gva, base, limit in bytes, rights in VMCS format.

    upper: the second half of a 16-byte system descriptor in IA-32e mode, else None.
    """

    def __init__(self, memory, gva, wide=False):
        low, high = struct.unpack("<II", memory.read(gva, 8))
        self.gva = gva
        self.base = low >> 16 | (high & 0xFF) << 16 | high & 0xFF000000
        self.limit = high & 0xF0000 | low & 0xFFFF
        if high & 1 << 23:
            self.limit = self.limit << 12 | 0xFFF
        self.rights = high >> 8 & 0xF0FF
        self.upper = None
        if wide:
            base, self.upper = struct.unpack("<II", memory.read(gva + 8, 8))
            self.base |= base << 32

    @property
    def type(self):
        """Bits 3:0 of the rights; see `system`."""
        return self.rights & 0xF

    @property
    def system(self):
        """LDT, TSS or gate, no code and no data."""
        return not self.rights & S

    @property
    def dpl(self):
        return self.rights >> 5 & 3

    @property
    def present(self):
        return bool(self.rights & P)

    def mark(self, memory, bits):
        """Set bits of the type (accessed, busy) here and in the table."""
        if self.rights & bits != bits:
            self.rights |= bits
            memory.write(self.gva + 5, bytes((self.rights & 0xFF,)))


def find(vcpu, memory, selector, wide=False):
    """Return the Descriptor of a selector, or None where it is null or beyond its table."""
    if not selector & 0xFFFC:
        return None
    offset = selector & 0xFFF8
    if selector & _TI:
        _, base, limit, rights = vcpu.segment("ldtr")
        if rights & UNUSABLE:
            return None
    else:
        base, limit = vcpu.read(GUEST_GDTR_BASE), vcpu.read(GUEST_GDTR_LIMIT)
    if offset + (15 if wide else 7) > limit:
        return None
    return Descriptor(memory, base + offset, wide)


def canonical(gva):
    """True where bits 63:47 are all alike."""
    return gva >> 47 in (0, 0x1FFFF)


def address(vcpu, name, offset, size, write):
    """Return the linear address of `size` bytes at segment `name`, or raise Fault.

    That is #SS(0) for the stack segment and #GP(0) for others. offset: already within the
    address size.
    """
    vector = events.SS if name == "ss" else events.GP
    _, base, limit, rights = vcpu.segment(name)
    if vcpu.bits == 64:
        gva = offset + (base if name in ("fs", "gs") else 0) & 0xFFFFFFFFFFFFFFFF
        if not canonical(gva) or not canonical(gva + size - 1):
            raise Fault(vector)
        return gva
    last = offset + size - 1
    if rights & (CODE | EXPAND_DOWN) == EXPAND_DOWN:
        inside = offset > limit and last <= (0xFFFFFFFF if rights & DB else 0xFFFF)
    else:
        inside = last <= limit
    if write:
        allowed = rights & (CODE | WRITABLE) == WRITABLE
    else:
        allowed = rights & (CODE | WRITABLE) != CODE
    if rights & UNUSABLE or not inside or not allowed:
        raise Fault(vector)
    return base + offset & 0xFFFFFFFF
