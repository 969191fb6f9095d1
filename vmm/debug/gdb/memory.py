"""Guest memory as gdb reads and writes it: by virtual address in the chosen thread's space, or by physical address.

A read never faults the guest (vmm/memory/look.py). Where an address is not mapped in user mode because of page-table
isolation, the kernel's half of the tables is tried.
"""

from micropython import const

from vmm.memory import look
from vmm.vtx.x86 import CR0_PG, EFER_LMA, MASK32, PAGE

_ISOLATED = const(0x1000)  # of CR3: the tables of user mode (Linux)


class Memory:
    """phys: addresses are guest-physical (`monitor phys on`)."""

    def __init__(self):
        self.phys = False

    def _places(self, vcpu, space):
        """The ways to read, in their order: functions of (address, size), and of (address, data)."""
        if self.phys:
            return [(vcpu.vm.memory.read, vcpu.vm.memory.write)]
        if space is None:
            space = look.space(vcpu)
        places = [(space.read, space.write)]
        if vcpu.efer & EFER_LMA:
            other = look.space(vcpu, vcpu.cr3 ^ _ISOLATED)
            places.append((other.read, other.write))
        return places

    def read(self, vcpu, space, gva, size):
        """Bytes, fewer than `size` where a page behind the first is not there. ValueError says why there are none.

        space: another address space than the vCPU's, or None.
        """
        places = self._places(vcpu, space)
        out = []
        while size > 0:
            piece = min(size, PAGE - (gva & (PAGE - 1)))
            try:
                out.append(_first(places, gva, piece))
            except ValueError:
                if not out:
                    raise
                break
            gva += piece
            size -= piece
        return b"".join(out)

    def write(self, vcpu, space, gva, data):
        """All of it, or ValueError that says why nothing was written."""
        why = None
        for _, write in self._places(vcpu, space):
            try:
                write(gva, data)
                return
            except ValueError as error:
                why = why or error
        raise why


def _first(places, gva, size):
    why = None
    for read, _ in places:
        try:
            return read(gva, size)
        except ValueError as error:
            why = why or error
    raise why


def translate(vcpu, gva):
    """The gpa of a linear address now. ValueError where it has none: without paging those above 4 GiB, too."""
    if not vcpu.cr0 & CR0_PG and gva > MASK32:
        raise ValueError("gva %#x is above 4 GiB, and paging is off" % gva)
    try:
        return look.space(vcpu).translate(gva)
    except ValueError:
        if not vcpu.efer & EFER_LMA:
            raise
        return look.space(vcpu, vcpu.cr3 ^ _ISOLATED).translate(gva)
