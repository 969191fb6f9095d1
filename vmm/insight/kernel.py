"""A guest's Linux kernel: its address space, its types, and objects at its symbols."""

from vmm.insight import btf, objects, types
from vmm.memory import look
from vmm.vtx.x86 import EFER_LMA

_PTI = 0x1000  # with page-table isolation, what CR3 has more in user mode


class Kernel:
    """Of one start of a VM. symbols["name"]: gva. space: its address space; types: vmm.insight.types.Types."""

    def __init__(self, vm, symbols):
        self.starts = vm.starts
        self._vm = vm
        self.symbols = symbols
        self._linux = None
        if not vm.vcpu.efer & EFER_LMA:
            raise ValueError("guest %s runs no 64-bit kernel: its types are not known" % vm.name)
        start, stop = symbols.get("__start_BTF"), symbols.get("__stop_BTF")
        if start is None or stop is None:
            raise ValueError("guest %s has a kernel without BTF: it does not tell its types" % vm.name)
        self.space = self._space()
        self.types = types.Types(btf.Btf(vm.memory, self.space.translate, start, stop - start))

    def _space(self):
        """The kernel's own page tables: those of the task that runs may be the few of user mode."""
        vcpu = self._vm.vcpu
        directory = self.symbol("init_top_pgt")
        for cr3 in (vcpu.cr3, vcpu.cr3 & ~_PTI):
            try:
                return look.space(vcpu, look.space(vcpu, cr3).translate(directory))
            except ValueError as error:
                why = error
        raise ValueError("the kernel's page tables cannot be found: %s" % why)

    def user(self, mm):
        """The address space of a process. mm: an Object or Pointer, struct mm_struct."""
        return look.space(self._vm.vcpu, self.space.translate(int(mm.pgd)))

    def symbol(self, name):
        """The gva of a symbol. ValueError where there is none, or several."""
        gva = self.symbols.get(name)
        if gva is None:
            raise ValueError("the guest's kernel has no symbol %s, or several" % name)
        return gva

    def object(self, type, gva):
        """The value of a type (its name, or a Type) at an address."""
        if isinstance(type, str):
            type = self.types.type(type)
        return objects.get(type, self.space, gva)

    def variable(self, name, type):
        """The value of a variable by its symbol; BTF has no types of variables."""
        return self.object(type, self.symbol(name))

    def container_of(self, gva, type, member):
        """The struct of a type whose member is at gva."""
        return objects.container_of(self.types, self.space, gva, type, member)

    @property
    def linux(self):
        """vmm.insight.linux.Linux."""
        if self._linux is None:
            from vmm.insight.linux import Linux

            self._linux = Linux(self)
        return self._linux
