"""Results of system calls, on their way back to the program."""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.insight import calls
from vmm.insight.calls import MOST
from vmm.memory.look import walk
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Calls
from vmm.vtx import reasons
from vmm.vtx.frame import RSP
from vmm.vtx.x86 import MASK64, PAGE

_BP = const(3)
_AX = const(80)  # offsets in struct pt_regs (vmm/insight/linux/returns.py)
_ORIG_AX = const(120)

# Words: root 2, shift, then the bits of the numbers
_SHIFT = const(2)
_BITS = const(3)


class Sysret(Instruction):
    """The vCPU is in the kernel, behind do_syscall_64; in a child, at the end of ret_from_fork."""

    name = "sysret"
    text = (
        "Linux has a system call's result and goes back to the program, in whatever way: vcpu.syscall is the call with "
        'its result. Value(number) is the result instead. SDM Vol. 2B, "SYSRET"'
    )
    reasons = (reasons.EXCEPTION_OR_NMI,)
    filters = (Calls(),)
    plain = False
    paged = True  # its places are found through the guest's page tables (vmm/debug/hidden.py)

    def __init__(self, vm=None, chosen=None):
        """With filters: in a VM."""
        if vm is None:
            return
        from vmm.insight.linux import returns

        kernel = vm.kernel
        self._gpas = [kernel.space.translate(gva) for gva in returns.places(kernel)]
        root = kernel.space.root
        numbers = calls.numbers(vm, chosen["number"]) if "number" in chosen else range(MOST)
        self._words = array("I", [root & 0xFFFFFFFF, root >> 32, kernel.space.shift]) + calls.bitmap(numbers)

    def of(self, vm, chosen):
        return type(self)(vm, chosen)

    def chains(self, vm):
        return [vm.hidden.at(gpa) for gpa in self._gpas]

    def task(self, vm, chosen):
        """The filters pid= and comm=, and number=, which is in the guest's memory."""
        inner = super().task(vm, chosen)
        words = uctypes.addressof(self._words)

        def both(link, below):
            return bind(numbered, words, vm.memory.table, inner(link, below) if inner else link, below)

        return both

    def needs(self, chosen):
        return Needs(exceptions=1 << _BP)

    def value(self, vcpu, value, handler):
        self.number(value)
        vcpu.vm.kernel.space.write(vcpu.rsp + _AX, (value & MASK64).to_bytes(8, "little"))
        return handler(vcpu)

    def skip(self, vcpu):
        """There is nothing to be skipped: on."""
        from vmm.debug import past

        gpa = vcpu.vm.kernel.space.translate(vcpu.rip)
        there = vcpu.vm.hidden.at(gpa).past
        return past.past(there.address, there.slow, vcpu)


@micropython.viper
def numbered(words: ptr32, table, link, below, vcpu) -> int:
    """Go on to `link` where the saved registers are of a call that is watched, else to `below`."""
    f = ptr32(vcpu)
    gva = (int(f[RSP]) | int(f[RSP + 1]) << 32) + _ORIG_AX
    hpa = int(walk(table, int(words[0]) | int(words[1]) << 32, int(words[_SHIFT]), gva, 1))
    if hpa < 0 or hpa & PAGE - 1 > PAGE - 8:
        return int(below(vcpu))
    n = ptr32(hpa)
    number = int(n[0])
    if n[1] or number >= MOST or not int(words[_BITS + (number >> 5)]) >> (number & 31) & 1:
        return int(below(vcpu))
    return int(link(vcpu))


SYSRET = Sysret()
