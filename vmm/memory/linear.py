"""Accesses to guest memory by linear address with all of the CPU's checks, for code that emulates the CPU.

The emulator, string I/O, descriptor tables and task switches use it. An operand is checked as by the CPU (segment,
canonical form, alignment, paging with all rights), every page of it before the first byte is read or written; a check
that fails raises vmm.fault.Fault. Debugging reads use vmm/memory/look.py instead. Limits: shadow stacks are not
checked; an access to several pages is not one locked access. Source: SDM Vol. 3A, "Limit Checking", "Type Checking",
"Null Segment Selector Checking", "Canonical Addressing", "Determination of Access Rights", "Interrupt 17 - Alignment
Check Exception".
"""

from vmm import fault
from vmm.fault import Fault
from vmm.memory import paging
from vmm.vtx.vmcs_bits import RIGHTS_CODE, RIGHTS_DB, RIGHTS_EXPAND_DOWN, RIGHTS_UNUSABLE, RIGHTS_WRITABLE
from vmm.vtx.x86 import CR0_AM, CR0_PE, MASK32, MASK64, PAGE, RFLAGS_AC, RFLAGS_VM

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")  # in the order of their encoding


class Unbacked(ValueError):
    """A paging structure of the guest lies outside its memory; the text has the address that was translated."""


def canonical(gva, width=48):
    """Whether the bits from width - 1 on are all equal. gva: unsigned."""
    upper = gva >> (width - 1)
    return upper == 0 or upper == (1 << (65 - width)) - 1


class Linear:
    """The accesses of one VM. load(vcpu) first: at each exit, and after a change of mode, CR0, CR3, CR4 or a segment.

    `access` is that of vmm/memory/paging.py. `explicit`: its bits for an operand of the instruction at RIP (CPL 3,
    EFLAGS.AC); without them an access is implicit, as those to descriptor tables and TSSs. Methods raise Fault, and
    Unbacked if the guest's paging structures lie outside its memory.
    """

    def __init__(self, vm):
        """vm: has walker, load_walker(), physical_read(), physical_write(), physical_load() and physical_store()."""
        self._vm = vm
        self._vcpu = None
        self._walker = vm.walker
        self._watch = None  # the vCPU's breakpoints
        self.bits = 64
        self.explicit = 0
        self._aligned = False

    def load(self, vcpu):
        """Load the vCPU's current mode; returns this object."""
        self._vcpu = vcpu
        self.bits = vcpu.bits
        access = paging.USER if vcpu.cpl == 3 else 0
        self._aligned = False
        if vcpu.rflags & RFLAGS_AC:
            self._aligned = access and bool(vcpu.cr0 & CR0_AM)
            access |= paging.AC
        self.explicit = access
        self._walker = self._vm.load_walker(vcpu)
        self._watch = vcpu.breakpoints
        self._watch.begin(vcpu)
        return self

    # -- addresses

    def address(self, segment, offset, size, write):
        """The linear address of `size` bytes at `offset`, already cut to the address size, of segment number `segment`.

        An access that the segment forbids is #SS(0) for the stack segment and #GP(0) for others.
        """
        if self.bits == 64:
            gva = offset
            if segment >= 4:
                gva = gva + self._vcpu.segment(SEGMENTS[segment])[1] & MASK64
            width = 57 if self._walker.mode == 57 else 48
            if not canonical(gva, width) or not canonical(gva + size - 1 & MASK64, width):
                raise Fault(fault.SS if segment == 2 else fault.GP)
            return gva
        _, base, limit, rights = self._vcpu.segment(SEGMENTS[segment])
        last = offset + size - 1
        if rights & (RIGHTS_CODE | RIGHTS_EXPAND_DOWN) == RIGHTS_EXPAND_DOWN:
            allowed = offset > limit and last <= (0xFFFFFFFF if rights & RIGHTS_DB else 0xFFFF)
        else:
            allowed = last <= limit
        if write:
            allowed = allowed and rights & RIGHTS_WRITABLE and (not rights & RIGHTS_CODE or self._real())
        else:
            allowed = allowed and rights & (RIGHTS_CODE | RIGHTS_WRITABLE) != RIGHTS_CODE
        if not allowed or rights & RIGHTS_UNUSABLE:
            raise Fault(fault.SS if segment == 2 else fault.GP)
        return base + offset & 0xFFFFFFFF

    def _real(self):
        """Whether the mode is real-address or virtual-8086: code segments are writable."""
        return not self._vcpu.cr0 & CR0_PE or bool(self._vcpu.rflags & RFLAGS_VM)

    def operand(self, segment, offset, size, access, alignment=0):
        """Check the access to an operand of the instruction at RIP. Returns its pieces, page by page.

        alignment: the one that #AC requires, if it differs from `size`.
        """
        gva = self.address(segment, offset, size, access & paging.WRITE)
        if self._aligned:
            self._align(gva, alignment or size)
        pieces = self.pieces(gva, size, access | self.explicit, MASK64 if self.bits == 64 else MASK32)
        self._watch.memory(gva, size, access & paging.WRITE)
        return pieces

    @staticmethod
    def _align(gva, alignment):
        if alignment in (2, 4, 8) and gva & (alignment - 1):
            raise Fault(fault.AC)

    def gpa(self, gva, access):
        """The gpa of a linear address."""
        gpa = self._walker.translate(gva, access)
        if gpa >= 0:
            return gpa
        if gpa == paging.NOT_CANONICAL:
            raise Fault(fault.GP)
        if gpa == paging.UNBACKED:
            raise Unbacked("the page tables for gva %#x lie outside guest memory" % (gva & MASK64))
        raise Fault(fault.PF, ~gpa, gva & MASK64)

    def pieces(self, gva, size, access, mask=MASK64):
        """[(gpa, size), ...] of a range, page by page. Accessed and dirty flags are set after all pages are checked.

        mask: of addresses, which wrap around.
        """
        piece = PAGE - (gva & (PAGE - 1))
        if size <= piece:
            return [(self.gpa(gva, access), size)]
        pages = [(gva, piece)]
        at = piece
        while at < size:
            pages.append((gva + at & mask, min(size - at, PAGE)))
            at += PAGE
        for page, _ in pages:
            self.gpa(page, access | paging.CHECK)
        return [(self.gpa(page, access), piece) for page, piece in pages]

    # -- the operand's value

    def get(self, pieces):
        """The value of `pieces` as an unsigned number. A device is read once."""
        if len(pieces) == 1:
            return self._vm.physical_load(pieces[0][0], pieces[0][1])
        return int.from_bytes(b"".join([self._vm.physical_read(gpa, size) for gpa, size in pieces]), "little")

    def put(self, pieces, value):
        """Write a number that fits the size of `pieces`."""
        if len(pieces) == 1:
            self._vm.physical_store(pieces[0][0], pieces[0][1], value)
            return
        at = 0
        data = value.to_bytes(sum([size for _, size in pieces]), "little")
        for gpa, size in pieces:
            self._vm.physical_write(gpa, data[at : at + size])
            at += size

    # -- bytes

    def touch(self, gva, size, access):
        """Check an access: raise the fault that it would raise."""
        self.pieces(gva, size, access)

    def read(self, gva, size, access=0):
        """Return `size` bytes."""
        return b"".join([self._vm.physical_read(gpa, piece) for gpa, piece in self.pieces(gva, size, access)])

    def write(self, gva, data, access=0):
        """Write bytes."""
        at = 0
        for gpa, piece in self.pieces(gva, len(data), access | paging.WRITE):
            self._vm.physical_write(gpa, data[at : at + piece])
            at += piece
