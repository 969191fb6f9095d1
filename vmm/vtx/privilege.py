"""The guest's privilege level, for handlers that read it at every exit."""

import micropython
from micropython import const

from vmm.vtx.vmcs import GUEST_SS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DPL_SHIFT

USER = const(3)  # CPL of programs


# vcpu.cpl costs some 2,000 ticks more.
@micropython.viper
def cpl(vcpu) -> int:
    """Current privilege level: the DPL of SS."""
    return int(vcpu.read(GUEST_SS_ACCESS_RIGHTS)) >> RIGHTS_DPL_SHIFT & 3
