"""Where an address or a symbol of a guest lies in its physical memory, now."""

from vmm.debug import places
from vmm.scheduling.states import PAUSED


class Where:
    """gva, gpa; paged: the gpa was found through page tables. space: the vmm.memory.look.Space."""

    def __init__(self, gva, gpa, space):
        self.gva = gva
        self.gpa = gpa
        self.space = space
        self.paged = space.paged


def address(vm, at, code=False):
    """The gva of `at`: a number, or a symbol, with an offset if need be ("start_kernel+0x10"). ValueError in words.

    code: it is to be executed; a symbol of data is refused."""
    try:
        return places.code(vm, at) if code else places.resolve(vm, at)
    except KeyError as error:
        raise ValueError("at=%r: %s" % (at, error.args[0])) from None


def find(vm, at, cr3=None, pid=None, code=False):
    """Return the Where of an address or symbol.

    cr3: of the process in whose address space it is; pid: of the process of Linux in whose it is, for a program's
    address. By default the address space is that of the vCPU, or the kernel's for what is not mapped there. code: as
    for address(). ValueError says why it is not mapped.
    """
    gva = address(vm, at, code)
    space = space_of(vm, gva, cr3, pid)
    return Where(gva, space.translate(gva), space)


def space_of(vm, gva, cr3=None, pid=None, vcpu=None):
    """The address space, as find() chooses it, in which a gva is mapped now. vcpu: another one than that which paused
    the guest, or that the policy at hand is called for."""
    if pid is not None and cr3 is None and not gva >> 63:
        return _of_process(vm, gva, pid)
    space = (vcpu or _asked(vm)).space(cr3)
    try:
        space.translate(gva)
        return space
    except ValueError:
        if cr3 is not None or not gva >> 63:
            raise
    try:
        space = vm.kernel.space
    except ValueError:
        pass  # it runs no Linux
    space.translate(gva)
    return space


def _asked(vm):
    return vm.stopped if vm.state == PAUSED else vm.current


def _of_process(vm, gva, pid):
    from vmm.insight.linux import maps, tasks  # loaded on first use

    kernel = vm.kernel
    task = tasks.find(kernel, pid)
    space = maps.space(kernel, task)
    try:
        space.translate(gva)
    except ValueError as error:
        raise ValueError(maps.explained(kernel, task, str(error))) from None
    return space
