"""Guest memory for reading without effects: the prompt, symbols, a debugger, a dump.

A look never faults the guest: it checks no rights, sets no accessed or dirty flag and reads no device. It takes an
address space, which need not be the current one, and an address that cannot be read raises an error that says why. Code
that acts in the CPU's place uses vmm/memory/linear.py.
"""

from vmm.memory import paging
from vmm.memory.paging import RSVD
from vmm.vtx.x86 import MASK64, PAGE


class Space:
    """One address space of a guest. walker: loaded, and used by nothing else; memory: vmm.memory.guest.GuestMemory."""

    def __init__(self, walker, memory):
        self._walker = walker
        self._memory = memory

    def translate(self, gva):
        """Return the gpa. ValueError says why there is none."""
        gpa = self._walker.translate(gva, paging.PEEK)
        if gpa >= 0:
            return gpa
        if gpa == paging.NOT_CANONICAL:
            why = "is not canonical"
        elif gpa == paging.UNBACKED:
            why = "has page tables outside guest memory"
        elif ~gpa & RSVD:
            why = "has a page-table entry with reserved bits"
        else:
            why = "is not mapped"
        raise ValueError("gva %#x %s" % (gva & MASK64, why))

    def _pieces(self, gva, size):
        """[(gpa, size), ...]: all of it, or ValueError."""
        out = []
        while size:
            gpa = self.translate(gva)
            piece = min(size, PAGE - (gva & (PAGE - 1)))
            if not self._memory.has(gpa, piece):
                raise ValueError("gva %#x is gpa %#x, where there is no RAM" % (gva & MASK64, gpa))
            out.append((gpa, piece))
            gva += piece
            size -= piece
        return out

    def read(self, gva, size):
        """Return bytes."""
        return b"".join([self._memory.read(gpa, piece) for gpa, piece in self._pieces(gva, size)])

    def write(self, gva, data):
        """Write bytes, whatever the pages' rights are; all or nothing."""
        at = 0
        for gpa, piece in self._pieces(gva, len(data)):
            self._memory.write(gpa, data[at : at + piece])
            at += piece


def space(vcpu, cr3=None):
    """The address space that the vCPU is in; with `cr3` that of another task in the same paging mode."""
    vm = vcpu.vm
    walker = vm.new_walker()
    walker.follow(vcpu, cr3)
    return Space(walker, vm.memory)
