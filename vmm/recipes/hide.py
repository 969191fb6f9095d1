"""A guest that does not find its hypervisor by CPUID.

    from vmm.recipes import hide
    h = hide.hide(vms['linux'])            # before start(): kernels ask at their start
    h.stop()

Bit 31 of ECX of leaf 1 is clear, and leaves 40000000H to 400000FFH are what a CPU without a hypervisor says: the
highest basic leaf's. Limits: an exit still takes longer than the instruction, which RDTSC shows; and what a kernel has
learnt before stays.
"""

from vmm.policies.events.cpuid import CPUID
from vmm.verdict import HANDLED

_PRESENT = 1 << 31  # of ECX of leaf 1
_FIRST = 0x40000000
_COUNT = 0x100


class Hidden:
    """policies: those that hide."""

    def __init__(self, vm):
        answer = vm.cpuid.exit
        highest = vm.cpuid.max_leaf

        def features(vcpu):
            answer(vcpu)
            vcpu.rcx = vcpu.rcx & ~_PRESENT & 0xFFFFFFFF
            return HANDLED

        def leaves(vcpu):
            vcpu.rax = highest
            answer(vcpu)
            return HANDLED

        def asks(vcpu):
            return _FIRST <= vcpu.rax & 0xFFFFFFFF < _FIRST + _COUNT

        self.policies = [vm.on(CPUID, leaf=1)(features), vm.on(CPUID, when=asks)(leaves)]

    def stop(self):
        for policy in self.policies:
            policy.detach()


def hide(vm):
    """From now on; returns what has stop()."""
    return Hidden(vm)
