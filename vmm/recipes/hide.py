"""A guest that does not find its hypervisor: CPUID, MSRs, and the time that CPUID takes.

    from vmm.recipes import hide
    h = hide.hide(vms['linux'])            # before start(): kernels detect it at their start
    h.stop()

Bit 31 of ECX of leaf 1 is clear, and leaves 40000000H to 400000FFH return the highest basic leaf, as on a CPU without
a hypervisor. The MSRs of those numbers raise #GP(0) in any case (vmm/handlers/msr.py). timing: by vm.hide_stops all
clocks of the guest stand still while CPUID exits, but for NATIVE ticks. Limits: other exits still take their time, and
what a kernel has detected before stays.
"""

from micropython import const

from vmm.policies.events.cpuid import CPUID
from vmm.verdict import HANDLED
from vmm.vtx.cpuid_bits import LEAF_1_ECX_HYPERVISOR

NATIVE = const(100)  # ticks that CPUID takes without a hypervisor
_FIRST = const(0x40000000)
_COUNT = const(0x100)


class Hidden:
    """A guest's hidden hypervisor. policy: the policy on CPUID."""

    def __init__(self, vm, timing):
        answer = vm.cpuid.exit
        highest = vm.cpuid.max_leaf
        self._vm = vm
        self._shows = timing and not vm.hide_stops  # stop() clears vm.hide_stops
        if timing:
            vm.hide_stops = True

        def hides(vcpu):
            leaf = vcpu.rax & 0xFFFFFFFF
            if _FIRST <= leaf < _FIRST + _COUNT:
                vcpu.rax = highest
            answer(vcpu)
            if leaf == 1:
                vcpu.rcx = vcpu.rcx & ~LEAF_1_ECX_HYPERVISOR & 0xFFFFFFFF
            if vm.stops is not None:
                vm.stops.spend(NATIVE)
            return HANDLED

        self.policy = vm.on(CPUID)(hides)

    def stop(self):
        """Show the hypervisor again."""
        self.policy.detach()
        if self._shows:
            self._vm.hide_stops = False


def hide(vm, timing=True):
    """Hide the hypervisor from now on; returns the Hidden."""
    return Hidden(vm, timing)
