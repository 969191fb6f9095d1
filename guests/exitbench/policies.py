# What the bench puts into the monitor for the rows that a plain Python function answers; executed at the prompt.
from vmm.policies.filters import IO, MEMORY
from vmm.verdict import HANDLED, Value


class Plain:
    """A device of one page in plain Python."""

    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        pass


def add_device(vm):
    """For mmio_policy."""
    vm.mmio_bus.claim(0xC8000000, 0x1000, Plain())
    vm.mmio.rewired()


def attach_policies(vm):
    """For out_policy and memory_policy."""

    @vm.on(IO, port=0x5E0, write=True)
    def out(vcpu):
        return HANDLED

    @vm.on(MEMORY, gpa=0xC8001000, access="r")
    def read(vcpu):
        return Value(0)


def detach_policies(vm):
    for policy in list(vm.policies):
        policy.detach()
