"""A guest's Linux kernel: its address space, its types, and objects at its symbols."""

from micropython import const

from vmm.insight import btf, objects, types
from vmm.memory import look
from vmm.vtx.x86 import EFER_LMA

_FOUND = const(128)  # symbols remembered
_PTI = 0x1000  # bit of CR3 that is set in user mode with page-table isolation


class Kernel:
    """The kernel of one run of a VM. symbols: vmm.insight.symbols.Symbols; space: the kernel's address space."""

    def __init__(self, vm, symbols):
        self.starts = vm.starts
        self.vm = vm
        self.symbols = symbols
        self._linux = None
        self._types = None
        self._found = {}  # symbol: gva
        self._per_cpu = None
        self._module_symbols = None
        self._orc = False  # not looked for yet
        self.calls = {}  # number: vmm.insight.linux.calls.Signature
        if not vm.vcpus[0].efer & EFER_LMA:
            raise ValueError("guest %s runs no 64-bit kernel: its types are not known" % vm.name)
        self.space = self._space()

    @property
    def types(self):
        """vmm.insight.types.Types, read at the first use. ValueError: the kernel has no BTF."""
        if self._types is None:
            start, stop = self.find("__start_BTF"), self.find("__stop_BTF")
            if start is None or stop is None:
                raise ValueError("guest %s has a kernel without BTF: it does not tell its types" % self.vm.name)
            section = btf.Btf(self.vm.memory, self.space.translate, start, stop - start)
            self._types = types.Types(section)
            from vmm.insight.linux import module_types

            self._types.more = module_types.ModuleTypes(self)
        return self._types

    def _space(self):
        """The address space of the kernel's own page tables: those in CR3 may be user mode's, which lack most of it."""
        vcpu = self.vm.vcpus[0]
        directory = self.symbol("init_top_pgt")
        for cr3 in (vcpu.cr3, vcpu.cr3 & ~_PTI):
            try:
                return look.space(vcpu, look.space(vcpu, cr3).translate(directory))
            except ValueError as error:
                why = error
        raise ValueError("the kernel's page tables cannot be found: %s" % why)

    def user(self, mm):
        """The address space of a process. mm: an Object or Pointer, struct mm_struct."""
        return look.space(self.vm.vcpus[0], self.space.translate(int(mm.pgd)))

    def find(self, name):
        """The gva of a symbol of the kernel's image, no module's; None where there is none, or several."""
        gva = self._found.get(name)
        if gva is None:
            found = self.symbols.own(name)
            if len(found) != 1:
                return None
            if len(self._found) >= _FOUND:
                self._found.clear()
            gva = self._found[name] = found[0]
        return gva

    def symbol(self, name):
        """The gva of a symbol. ValueError where there is none, or several."""
        gva = self.find(name)
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

    # -- per CPU

    @property
    def processors(self):
        """vmm.insight.percpu.PerCpu."""
        if self._per_cpu is None:
            from vmm.insight.percpu import PerCpu

            self._per_cpu = PerCpu(self)
        return self._per_cpu

    def per_cpu(self, name, number, type=None):
        """The value of a per-CPU variable of processor `number`. type: its name or Type; else what BTF says."""
        return self.processors.get(name, number, type)

    def current(self, vcpu):
        """A pointer to the struct task_struct of what a vCPU runs. ValueError: it runs no Linux yet."""
        number = self.processors.number_of(vcpu)
        if self.find("pcpu_hot") is not None:  # Linux 6.2 to 6.14
            return self.per_cpu("pcpu_hot", number).current_task
        return self.per_cpu("current_task", number, "struct task_struct *")

    # -- stacks

    @property
    def orc(self):
        """vmm.insight.linux.orc.Orc, or None where the kernel has none."""
        if self._orc is False:
            from vmm.insight.linux import orc

            try:
                self._orc = orc.Orc(self)
            except ValueError:
                self._orc = None
        return self._orc

    def is_text(self, gva):
        """Whether kernel code can be there: of the image, or of a module."""
        for first, last in (("_stext", "_etext"), ("_sinittext", "_einittext")):
            least, most = self.find(first), self.find(last)
            if least is not None and most is not None and least <= gva < most:
                return True
        return self.module_orc(gva) is not None

    def begins(self, gva):
        """Whether a function begins at an address."""
        around = self.symbols.around(gva)
        return bool(around) and around[1] == gva

    def is_thunk(self, gva):
        """Whether a function at an address replaces an indirect jump or a return (retpolines and their like)."""
        around = self.symbols.around(gva)
        return bool(around) and "thunk" in around[0]

    @property
    def module_symbols(self):
        """vmm.insight.linux.module_symbols.ModuleSymbols. ValueError: the kernel has no BTF."""
        if self._module_symbols is None:
            from vmm.insight.linux import module_symbols

            self.types.type("struct module")
            self._module_symbols = module_symbols.ModuleSymbols(self)
        return self._module_symbols

    def module_orc(self, gva):
        """(gva of orc_unwind_ip, gva of orc_unwind, entries) of the module that an address lies in, or None."""
        from vmm.insight.linux import modules

        return modules.orc(self, gva)

    def frames(self, vcpu):
        """Yield the vmm.insight.linux.stack.Frames of the kernel code that a vCPU is in, innermost first."""
        from vmm.insight.linux import stack

        return iter(stack.of_vcpu(self, vcpu))

    def stack(self, vcpu):
        """The kernel stack of what a vCPU runs: a list of Frames that prints as text. ValueError: user mode."""
        from vmm.insight.linux import stack

        return stack.collect(self, stack.of_vcpu(self, vcpu), "vCPU %d" % vcpu.number)

    @property
    def linux(self):
        """vmm.insight.linux.Linux."""
        if self._linux is None:
            from vmm.insight.linux import Linux

            self._linux = Linux(self)
        return self._linux
