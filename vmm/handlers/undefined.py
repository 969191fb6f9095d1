"""Instructions that exit although the guest's CPUID denies them.

Source: SDM Vol. 3C, "Instructions That Cause VM Exits Unconditionally".
"""

from vmm.vtx import events


def exit(vcpu):
    """Handler: deliver #UD, as a CPU without the instruction does."""
    vcpu.vm.count_refused("instruction of exit reason %d" % vcpu.reason)
    return events.undefined(vcpu)


def privileged(vcpu):
    """Handler of RDPMC: deliver #GP(0), since there are no performance counters."""
    vcpu.vm.count_refused("RDPMC")
    return events.general_protection(vcpu)
