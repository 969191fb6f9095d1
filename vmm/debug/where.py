"""Where an address or a symbol of a guest lies in its physical memory, now."""

from vmm.vtx.x86 import MASK64


class Where:
    """gva, gpa; paged: that was found through page tables. space: the vmm.memory.look.Space."""

    def __init__(self, gva, gpa, space):
        self.gva = gva
        self.gpa = gpa
        self.space = space
        self.paged = space.paged


def address(vm, at):
    """The gva of `at`: a number, or a symbol, with an offset if need be ("start_kernel+0x10"). ValueError in words."""
    if isinstance(at, int):
        return at & MASK64
    name, _, offset = at.partition("+")
    try:
        return vm.symbols[name] + (int(offset, 0) if offset else 0) & MASK64
    except KeyError as error:
        raise ValueError("at=%r: %s" % (at, error.args[0])) from None


def find(vm, at, cr3=None):
    """Return the Where of an address or symbol. cr3: of the process whose address space it is in; by default what the
    vCPU is in, and the kernel's for what is not mapped there. ValueError says why it is not mapped."""
    gva = address(vm, at)
    space = vm.current.space(cr3)
    try:
        return Where(gva, space.translate(gva), space)
    except ValueError:
        if cr3 is not None or not gva >> 63:
            raise
    try:
        space = vm.kernel.space
    except ValueError:
        pass  # it runs no Linux
    return Where(gva, space.translate(gva), space)
