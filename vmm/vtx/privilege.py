"""The guest's privilege level, for handlers that look at it at every exit."""

import micropython

from vmm.vtx.vmcs import GUEST_SS_ACCESS_RIGHTS


# As vcpu.cpl it costs some 2,000 more.
@micropython.viper
def cpl(vcpu) -> int:
    """Current privilege level: the DPL of SS."""
    return int(vcpu.read(GUEST_SS_ACCESS_RIGHTS)) >> 5 & 3
