"""Instructions for CPL 0, where the CPU exits before it has looked at the privilege level.

The SDM gives faults for lack of privilege priority over exits; MOV DR and XSETBV are where CPUs and emulators
of them do otherwise. So the monitor looks itself, but for HLT, RDMSR, WRMSR, IN and OUT, whose exits are too
frequent for that: tests/monitor/test_privilege.py tells where an engine exits too early. Source: SDM
Vol. 3C, "Relative Priority of Faults and VM Exits".
"""

import micropython
from vmx import bind

from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_SS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DPL


def kernel_only(handler):
    """The handler, with #GP(0) instead where the guest's CPL is not 0."""
    return bind(_checked, handler)


# As bytecode, by vcpu.cpl, it costs 2,200 more.
@micropython.viper
def _checked(handler, vcpu) -> int:
    if int(vcpu.read(GUEST_SS_ACCESS_RIGHTS)) & RIGHTS_DPL:  # of SS: the CPL
        return int(events.general_protection(vcpu))
    return int(handler(vcpu))
