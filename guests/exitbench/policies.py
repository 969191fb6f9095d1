# What the bench puts into the monitor for the rows that plain Python answers; executed at the prompt.
from vmm.policies.events import (
    CALL,
    CPUID,
    CR,
    EXCEPTION,
    EXECUTE,
    IO,
    MEMORY,
    RDMSR,
    RDRAND,
    RETURN,
    STEP,
    SYSCALL,
    VMCALL,
    WRITE,
    WRMSR,
)  # fmt: skip
from vmm.verdict import HANDLED, Value

_CALL = 0x7FFF0001  # as in cpu.c
_OTHER = 2  # the number of a system call that it does not make
_RAM = 0xF00000  # as in memory.c
_HIDDEN_NOP = 0xF02000
_HIDDEN_PUSH = 0xF03000
_CALL_RETURN = 0xF04000
_WATCHED = 0xF05000
_MEMORY = 0xC8001000
_IOAPIC = 0xFEC00000


class Plain:
    """A device of one page in plain Python."""

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        pass


def add_device(vm):
    """For mmio_policy, mmio_pages, mmio_part."""
    vm.mmio_bus.claim(0xC8000000, 0x1000, Plain())
    vm.mmio_bus.claim(0xC8045000, 0x2000, Plain())
    vm.mmio_bus.claim(0xC8057100, 0x100, Plain())


def watch(vcpu):
    """A policy that only looks."""


def handle(vcpu):
    return HANDLED


def attach_policies(vm, answer):
    """One on each event. answer: "watch", "value" and so on (host-tools/pcanel/bench/conditions.py)."""
    {
        "watch": _attach_watching,
        "value": _attach_answering,
        "handled": _attach_handling,
        "hidden": _attach_hidden,
        "step": lambda vm: vm.on(STEP)(watch),
    }[answer](vm)


def detach_policies(vm):
    for policy in list(vm.policies):
        policy.detach()


def _attach_all(vm, function):
    """On the operations of rows that have no policy otherwise."""
    vm.on(IO, port=0x21, write=False)(function)
    vm.on(CPUID, leaf=0)(function)
    vm.on(RDMSR, msr=0x1B)(function)
    vm.on(WRMSR, msr=0x3B)(function)
    vm.on(VMCALL, number=_CALL)(function)
    vm.on(EXCEPTION, vector=3)(function)
    vm.on(MEMORY, gpa=_RAM)(function)


def _attach_rdrand(vm, function):
    if vm.monitor.caps.found["proc2"].RDRAND_EXITING:  # CPUs without it have no RDRAND
        vm.on(RDRAND)(function)


def _attach_watching(vm):
    _attach_all(vm, watch)
    vm.on(IO, port=0x5F0, write=False)(watch)
    vm.on(CR, number=3, write=True)(watch)
    vm.on(WRMSR, msr=0xC0000100)(watch)
    vm.on(MEMORY, gpa=_IOAPIC)(watch)
    vm.on(SYSCALL)(watch)
    _attach_rdrand(vm, watch)


def _attach_hidden(vm):
    vm.on(EXECUTE, gpa=_HIDDEN_NOP)(watch)
    vm.on(EXECUTE, gpa=_HIDDEN_PUSH)(watch)
    vm.on(CALL, gpa=_CALL_RETURN)(watch)
    vm.on(RETURN, gpa=_CALL_RETURN)(watch)
    vm.on(WRITE, gpa=_WATCHED, size=8)(watch)


def _attach_handling(vm):
    vm.on(EXCEPTION, vector=6)(handle)
    _attach_all(vm, handle)
    vm.on(IO, port=0x5E0, write=True)(handle)


def _attach_answering(vm):
    def number(vcpu):
        return Value(0)

    vm.on(IO, port=0x21, write=False)(number)
    vm.on(CPUID, leaf=0)(lambda vcpu: Value((0x16, 0, 0, 0)))
    vm.on(RDMSR, msr=0x1B)(lambda vcpu: Value(0xFEE00900))
    vm.on(WRMSR, msr=0x3B)(number)
    vm.on(VMCALL, number=_CALL)(number)
    vm.on(CR, cr3=0x123456000)(number)
    vm.on(SYSCALL, number=_OTHER)(number)
    _attach_rdrand(vm, number)
    vm.on(MEMORY, gpa=_RAM)(number)
    vm.on(MEMORY, gpa=_IOAPIC)(number)
    vm.on(MEMORY, gpa=_MEMORY, access="r")(number)
