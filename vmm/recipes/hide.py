"""A guest that does not find its hypervisor: CPUID, MSRs, and the time that CPUID takes.

    from vmm.recipes import hide
    h = hide.hide(vms['linux'])            # before start(): kernels ask at their start
    h.stop()

Bit 31 of ECX of leaf 1 is clear, and leaves 40000000H to 400000FFH are what a CPU without a hypervisor says: the
highest basic leaf's. The MSRs of those numbers are #GP(0) in any case (vmm/handlers/msr.py). timing: the TSC of all
vCPUs stands still while CPUID exits, but for NATIVE ticks; each exit teaches how long the way back to the guest is.
Limits: the CPU's own part of an exit is not known (extra= ticks); other clocks (PIT, HPET, power management timer) go
on, and a guest that asks very often finds the TSC slow beside them; other exits still take their time; and what a
kernel has learnt before stays.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.policies.events.cpuid import CPUID
from vmm.verdict import HANDLED
from vmm.vtx.frame import DIRTY, DIRTY_TSC_OFFSET, ENTRY_TSC, EXIT_TSC, TSC_OFFSET

NATIVE = const(100)  # ticks that CPUID takes
_PRESENT = const(1 << 31)  # of ECX of leaf 1
_FIRST = const(0x40000000)
_COUNT = const(0x100)
_FAR = const(100_000)  # ticks of the way back: more is something else

# Words, two each:
_REST = const(0)  # ticks from here to the entry, the fewest that were seen; 0: none yet
_ENDED = const(2)  # host TSC here, the last time
_EXTRA = const(4)


class Hidden:
    """policy: that on CPUID."""

    def __init__(self, vm, timing, extra):
        answer = vm.cpuid.exit
        highest = vm.cpuid.max_leaf
        self._words = array("I", [0, 0, 0, 0, extra, 0])
        words = uctypes.addressof(self._words)
        conceal = bind(_conceal, words, vm.vcpu.clock.rdtsc, vm.vcpus) if timing else None

        def hides(vcpu):
            leaf = vcpu.rax & 0xFFFFFFFF
            if _FIRST <= leaf < _FIRST + _COUNT:
                vcpu.rax = highest
            answer(vcpu)
            if leaf == 1:
                vcpu.rcx = vcpu.rcx & ~_PRESENT & 0xFFFFFFFF
            if conceal is not None:
                conceal(vcpu)
            return HANDLED

        self.policy = vm.on(CPUID)(hides)

    def stop(self):
        self.policy.detach()


@micropython.viper
def _conceal(words: int, rdtsc, vcpus, vcpu):
    """Take the exit at hand out of the guest's time."""
    w = ptr32(words)
    f = ptr32(vcpu)
    ended = int(w[_ENDED]) | int(w[_ENDED + 1]) << 32
    rest = (int(f[ENTRY_TSC]) | int(f[ENTRY_TSC + 1]) << 32) - ended
    if ended and rest > 0 and rest < _FAR and (w[_REST] == 0 or rest < int(w[_REST])):
        w[_REST] = rest
    now = int(rdtsc())
    w[_ENDED] = now
    w[_ENDED + 1] = now >> 32
    exited = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
    if exited == 0:
        return  # its time has been counted already
    gone = now - exited + int(w[_REST]) + int(w[_EXTRA]) - NATIVE
    for each in vcpus:
        g = ptr32(each)
        offset = (int(g[TSC_OFFSET]) | int(g[TSC_OFFSET + 1]) << 32) - gone
        g[TSC_OFFSET] = offset
        g[TSC_OFFSET + 1] = offset >> 32
        g[DIRTY] |= DIRTY_TSC_OFFSET


def hide(vm, timing=True, extra=0):
    """From now on; returns what has stop()."""
    return Hidden(vm, timing, extra)
