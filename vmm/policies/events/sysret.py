"""System calls where Linux has saved the program's registers and RSP leads to them: results on their way back to the
program, and the calls of 32-bit programs. Each place has a hidden breakpoint (vmm/debug/hidden.py)."""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.fault import BP
from vmm.insight import calls
from vmm.insight.calls import MOST
from vmm.insight.linux.returns import (
    AX,
    CALL_BYTES,
    CODE32,
    CODE64,
    EXECVE,
    EXECVE_32,
    EXECVEAT,
    EXECVEAT_32,
)
from vmm.insight.linux.stack import ORIG_AX
from vmm.memory.look import walk
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Calls
from vmm.vtx import reasons
from vmm.vtx.frame import RSP
from vmm.vtx.x86 import MASK64, PAGE

_NO_CALL = const(-1)  # in orig_ax: the kernel calls nothing, and leaves ax
_ENOSYS = const(-38)

# Words: root 2, shift, then the bits of the numbers
_SHIFT = const(2)
_UNSAVED = const(3)  # 1: where orig_ax has no number, ax has it
_EXECVE = const(4)  # the number of execve where the new program is of the other kind, and CS of that
_CS = const(5)
_WHICH = const(6)  # bit 0: calls of that number are watched; bit 1: such an execve is
_BITS = const(7)


class Saved(Instruction):
    """The base of the three events. old: of 32-bit programs; unsaved: as _UNSAVED.

    execves: the numbers of execve and execveat. For a new program of the other kind, whose code has CS execve_cs, Linux
    changes such a number to execve_as before the call returns (arch/x86/kernel/process_64.c).
    """

    reasons = (reasons.EXCEPTION_OR_NMI,)
    filters = (Calls(),)
    plain = False
    paged = True  # its places are found through the guest's page tables (vmm/debug/hidden.py)
    old = False
    unsaved = False
    execves = ()
    execve_as = execve_cs = MOST  # none

    def __init__(self, vm=None, chosen=None):
        """vm, chosen: the guest and the filters; without them the word that users write."""
        if vm is None:
            return
        kernel = vm.kernel
        self._gpas = [kernel.space.translate(gva) for gva in self.places(kernel)]
        root = kernel.space.root
        numbers = list(calls.numbers(vm, chosen["number"], self.old) if "number" in chosen else range(MOST))
        which = int(self.execve_as in numbers)
        if any([number in numbers for number in self.execves]):
            which |= 2
            numbers.append(self.execve_as)
        self._words = array("I", [root & 0xFFFFFFFF, root >> 32, kernel.space.shift, int(self.unsaved)])
        self._words += array("I", [self.execve_as, self.execve_cs, which])
        self._words += calls.bitmap(numbers)

    def of(self, vm, chosen):
        if vm.hidden.fetched is not None:
            raise ValueError(
                "%s: this CPU's EPT has no execute-only pages, so that all the kernel's entry code would be stepped"
                % self.name
            )
        return type(self)(vm, chosen)

    def chains(self, vm):
        return [vm.hidden.at(gpa) for gpa in self._gpas]

    def task(self, vm, chosen):
        """The filters pid= and comm=, and number=, which is in the guest's memory."""
        inner = super().task(vm, chosen)
        if "number" not in chosen:
            return inner  # calls with an unknown number, too
        words = uctypes.addressof(self._words)

        def both(link, below):
            return bind(numbered, words, vm.memory.table, inner(link, below) if inner else link, below)

        return both

    def needs(self, chosen):
        return Needs(exceptions=1 << BP)

    def put(self, vcpu, offset, value):
        """Change a word of the saved registers. ValueError unless it is a number."""
        self.number(value)
        vcpu.vm.kernel.space.write(vcpu.rsp + offset, (value & MASK64).to_bytes(8, "little"))

    def value(self, vcpu, value, handler):
        self.put(vcpu, AX, value)
        return handler(vcpu)

    def skip(self, vcpu):
        """Go on: the event is no instruction that could be skipped."""
        vm = vcpu.vm
        return vm.hidden.at(vm.kernel.space.translate(vcpu.rip)).past.handler(vcpu)

    def inject(self, vcpu):
        raise ValueError("%s is in the kernel: an exception there would be the kernel's own" % self.name)


class Sysret(Saved):
    """The vCPU is behind do_syscall_64; in a child, at the end of ret_from_fork."""

    name = "sysret"
    text = (
        "Linux has a system call's result and goes back to the program, in whatever way: vcpu.syscall is the call with "
        'its result. Value(number) is the result instead. SDM Vol. 2B, "SYSRET"'
    )
    execves = EXECVE, EXECVEAT
    execve_as = EXECVE_32
    execve_cs = CODE32

    def places(self, kernel):
        from vmm.insight.linux import returns

        return returns.places(kernel)


class Syscall32(Saved):
    """The vCPU is at the CALL of the kernel's C function."""

    name = "syscall32"
    text = (
        "a system call of a 32-bit program of a 64-bit Linux, by INT 80H or SYSENTER: vcpu.syscall is its "
        "name and arguments. Value(number) is its result, and the kernel is not called. "
        'SDM Vol. 2A, "INT n"; Vol. 2B, "SYSENTER"'
    )
    old = True
    unsaved = True

    def places(self, kernel):
        from vmm.insight.linux import compat

        self._int80 = compat.ways(kernel)[0]
        return [gva for gva in compat.ways(kernel) if gva is not None]

    def value(self, vcpu, value, handler):
        """With INT 80H skip the CALL. With SYSENTER the kernel's function returns at once: orig_ax names no call."""
        self.put(vcpu, AX, value)
        if vcpu.rip == self._int80:
            vcpu.rip += CALL_BYTES
            return verdict.RESUME
        self.put(vcpu, ORIG_AX, _NO_CALL)
        return handler(vcpu)

    def skip(self, vcpu):
        """HANDLED: as if the call did not exist."""
        vm = vcpu.vm
        return self.value(vcpu, _ENOSYS, vm.hidden.at(vm.kernel.space.translate(vcpu.rip)).past.handler)


class Sysret32(Saved):
    """The vCPU is behind the CALL."""

    name = "sysret32"
    text = (
        "the same behind the kernel's function: vcpu.syscall is the call with its result. Value(number) is the result "
        'instead. SDM Vol. 2A, "IRET", Vol. 2B, "SYSEXIT"'
    )
    old = True
    execves = EXECVE_32, EXECVEAT_32
    execve_as = EXECVE
    execve_cs = CODE64

    def places(self, kernel):
        from vmm.insight.linux import compat

        return [gva + CALL_BYTES for gva in compat.ways(kernel) if gva is not None]


@micropython.viper
def numbered(words: ptr32, table, link, below, vcpu) -> int:
    """Go on to `link` where the saved registers are of a call that is watched, else to `below`."""
    f = ptr32(vcpu)
    gva = (int(f[RSP]) | int(f[RSP + 1]) << 32) + ORIG_AX
    hpa = int(walk(table, int(words[0]) | int(words[1]) << 32, int(words[_SHIFT]), gva, 1))
    if hpa < 0 or hpa & PAGE - 1 > PAGE - 8:
        return int(below(vcpu))
    n = ptr32(hpa)
    if words[_UNSAVED] and n[1] and hpa & PAGE - 1 >= ORIG_AX - AX:
        n = ptr32(hpa - (ORIG_AX - AX))
    number = int(n[0])
    if n[1] or number >= MOST or not int(words[_BITS + (number >> 5)]) >> (number & 31) & 1:
        return int(below(vcpu))
    if number == words[_EXECVE]:
        other = int(hpa & PAGE - 1 <= PAGE - 24 and n[4] & 0xFFFF == words[_CS])  # CS is two words behind
        if not int(words[_WHICH]) >> other & 1:
            return int(below(vcpu))
    return int(link(vcpu))


SYSRET = Sysret()
SYSCALL32 = Syscall32()
SYSRET32 = Sysret32()
