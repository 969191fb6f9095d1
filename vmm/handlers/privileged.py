"""Instructions for CPL 0 at which the CPU may exit before it has checked the privilege level.

The SDM gives faults for lack of privilege priority over exits; for MOV DR and XSETBV, CPUs and their emulators differ.
So the monitor checks CPL itself, except for HLT, RDMSR, WRMSR, IN and OUT, whose exits are too frequent:
tests/monitor/test_privilege.py shows where an engine exits too early. Source: SDM Vol. 3C, "Relative Priority of Faults
and VM Exits".
"""

import micropython
from vmx import bind

from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_SS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DPL


def kernel_only(handler):
    """Return a handler that delivers #GP(0) if the CPL is not 0, else calls `handler`."""
    return bind(_checked, handler)


# In bytecode, with vcpu.cpl, it takes 2,200 ticks more.
@micropython.viper
def _checked(handler, vcpu) -> int:
    if int(vcpu.read(GUEST_SS_ACCESS_RIGHTS)) & RIGHTS_DPL:  # of SS: the CPL
        return int(events.general_protection(vcpu))
    return int(handler(vcpu))
