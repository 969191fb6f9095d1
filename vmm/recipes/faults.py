"""System calls that fail: every N-th call of a kind has an error, and the kernel is not called.

from vmm.recipes import faults
p = faults.fail(vms['linux'], "openat", "ENOENT", every=3, comm="ls")
p.hits                                 # how many have failed; p.detach()
"""

from vmm.insight.linux import values
from vmm.policies.events.syscall import SYSCALL
from vmm.verdict import Value


def fail(vm, number, error, **filters):
    """Let calls (a number, a name, or a list of them) fail with an error, by name; returns the policy.

    filters: every=, limit=, pid=, comm=, when=. ValueError for an unknown error.
    """
    answer = Value(-values.number_of(error))
    return vm.on(SYSCALL, number=number, **filters)(lambda vcpu: answer)
