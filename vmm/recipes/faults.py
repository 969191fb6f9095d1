"""Faults on purpose: every N-th system call, read of a port or of device memory, or call of a function fails.

from vmm.recipes import faults
p = faults.fail(vms['linux'], "openat", "ENOENT", every=3, comm="ls")
q = faults.port(vms['linux'], 0x71, every=2)
r = faults.memory(vms['linux'], 0xFED000F0, 8, every=10)
s = faults.function(vms['linux'], "do_filp_open", "EIO", comm="cat")
p.hits                                 # how many have failed; p.detach()

What fails is not done: neither the kernel nor the device is called. filters: every=, limit=, pid=, comm=, when=, cpl=.
"""

from vmm.insight.linux import values
from vmm.policies.events.call import CALL
from vmm.policies.events.io import IO
from vmm.policies.events.memory import MEMORY
from vmm.policies.events.syscall import SYSCALL
from vmm.verdict import Value
from vmm.vtx.x86 import MASK32, MASK64


def _answer(value):
    answer = Value(value)

    def fails(vcpu):
        return answer

    return fails


def _error(error):
    """A result by the error's name, or as a number."""
    return -values.number_of(error) if isinstance(error, str) else error


def fail(vm, number, error, **filters):
    """Let calls (a number, a name, or a list of them) fail with an error, by name; returns the policy.

    ValueError for an unknown error.
    """
    return vm.on(SYSCALL, number=number, **filters)(_answer(_error(error)))


def port(vm, port, value=MASK32, **filters):
    """Let reads of a port fail: all ones, or another value; returns the policy. size= is a filter, too."""
    return vm.on(IO, port=port, write=False, **filters)(_answer(value))


def memory(vm, gpa, length, value=MASK64, **filters):
    """Let reads of device memory, or of RAM, fail: all ones, or another value; returns the policy. length: bytes."""
    return vm.on(MEMORY, gpa=gpa, length=length, access="r", **filters)(_answer(value))


def function(vm, at, error, **filters):
    """Let a function of the guest return an error at once, by name ("EIO") or as a number; returns the policy.

    at: a symbol or an address. Where the function returns a pointer, Linux's errors are the same numbers.
    """
    return vm.on(CALL, at=at, **filters)(_answer(_error(error)))
