"""A kernel's per-CPU variables, and which of its processors a vCPU is.

Each processor has a copy of the section of per-CPU variables; __per_cpu_offset[n] is added to a variable's symbol,
which is an offset itself up to Linux 6.14. In the kernel it is the GS base, in user mode IA32_KERNEL_GS_BASE.
Source: Linux, arch/x86/include/asm/percpu.h.
"""

from micropython import const

from vmm.insight import objects
from vmm.insight.btf_kinds import VAR
from vmm.vtx.vmcs import GUEST_GS_BASE
from vmm.vtx.x86 import IA32_KERNEL_GS_BASE, MASK64

_MOST = const(8192)  # processors


class PerCpu:
    """The per-CPU variables of one kernel (vmm.insight.kernel.Kernel)."""

    def __init__(self, kernel):
        self._kernel = kernel
        self._offsets = kernel.symbol("__per_cpu_offset")
        count = kernel.find("nr_cpu_ids")
        self.count = min(kernel.space.number(count, 4), _MOST) if count is not None else len(kernel.vm.vcpus)
        self._types = {}  # name: Type

    def base(self, number):
        """The offset of processor `number`, to be added to a symbol."""
        if not 0 <= number < self.count:
            raise ValueError("the guest's kernel has no processor %d: they are 0 to %d" % (number, self.count - 1))
        return self._kernel.space.number(self._offsets + 8 * number, 8)

    def number_of(self, vcpu):
        """The kernel's number of a vCPU. ValueError: the kernel has not set it up yet."""
        bases = [vcpu.read(GUEST_GS_BASE), vcpu.msr(IA32_KERNEL_GS_BASE)]
        if vcpu.cpl:
            bases.reverse()  # the other base is the program's; also during the kernel's entry, until SWAPGS
        offsets = [self.base(number) for number in range(self.count)]
        for base in bases:
            if base in offsets:
                return offsets.index(base)
        raise ValueError("vCPU %d of guest %s runs no code of Linux yet" % (vcpu.number, vcpu.vm.name))

    def gva(self, name, number):
        """The address of a per-CPU variable of processor `number`."""
        return self._kernel.symbol(name) + self.base(number) & MASK64

    def type(self, name):
        """The Type of a per-CPU variable: BTF has the types of these variables only."""
        type = self._types.get(name)
        if type is None:
            types = self._kernel.types
            found = types.btf.find(VAR, name)
            if not found:
                raise ValueError("the guest's BTF has no per-CPU variable %s" % name)
            type = self._types[name] = types.by_id(types.btf.record(found[0])[4])
        return type

    def get(self, name, number, type=None):
        """The value of a per-CPU variable. type: its name or Type; else what BTF says."""
        if type is None:
            type = self.type(name)
        elif isinstance(type, str):
            type = self._kernel.types.type(type)
        return objects.get(type, self._kernel.space, self.gva(name, number))
