"""System calls by SYSCALL."""

import uctypes
from micropython import const
from vmx import bind, vmwrite

from vmm.insight import calls
from vmm.insight.calls import MOST
from vmm.policies.event import Instruction, Needs
from vmm.policies.filters import Calls
from vmm.policies.link import among, equal
from vmm.vtx import reasons
from vmm.vtx.frame import RAX
from vmm.vtx.x86 import IA32_LSTAR, MASK32, MASK64

_LENGTH = const(2)  # bytes of the instruction


class Syscall(Instruction):
    """The vCPU stands at the kernel's entry point, before its first instruction: RCX is the program's RIP."""

    name = "syscall"
    text = (
        "a system call by SYSCALL, at the kernel's entry point: vcpu.syscall is its name and arguments. Value(number) "
        'is its result, and the kernel is not called. SDM Vol. 2B, "SYSCALL"'
    )
    reasons = (reasons.EXCEPTION_OR_NMI,)
    filters = (Calls(),)
    plain = False
    repeats = False

    def __init__(self, numbers=None):
        """numbers: of the calls that a policy watches; None: all."""
        self.numbers = numbers
        if numbers is not None and len(numbers) > 1:
            self._bits = calls.bitmap(numbers)

    def of(self, vm, chosen):
        vm.entries.check()
        if "number" not in chosen:
            return self
        return type(self)(calls.numbers(vm, chosen["number"]))

    def chains(self, vm):
        return [vm.entries]

    def tests(self, chosen):
        if self.numbers is None:
            return []
        if len(self.numbers) == 1:
            return [equal(RAX, MASK32, self.numbers[0])]
        return [among(RAX, uctypes.addressof(self._bits), MOST)]

    def needs(self, chosen):
        return Needs(fetches=True, msrs=((IA32_LSTAR, False), (IA32_LSTAR, True)))

    def quickly(self, vm):
        from vmm.policies import entries

        return bind(entries.answer, vmwrite), bind(entries.skip, vmwrite)

    def value(self, vcpu, value, handler):
        self.number(value)
        vcpu.rax = value & MASK64
        return self.skip(vcpu)

    def skip(self, vcpu):
        return vcpu.vm.entries.returns(vcpu, 0)

    def again(self, vcpu):
        vcpu.vm.entries.returns(vcpu, _LENGTH)

    def stand(self, vcpu):
        """RIP stays at the entry point: back at SYSCALL, resume() would cause the event again."""

    def inject(self, vcpu):
        self.again(vcpu)


SYSCALL = Syscall()
