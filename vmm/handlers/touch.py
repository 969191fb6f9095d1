"""Demand paging: RAM that is mapped page by page at the guest's first access (`demand_paging` in its description).

The frames are allocated at creation; the EPT entry is complete except for its rights (vmm/memory/ept.py, defer()). The
CPU does not cache such an entry, so no invalidation is needed. Source: SDM Vol. 3C, "EPT Violations";
"Invalidation of Cached EPT Information".
"""

import micropython
from vmx import bind

from vmm.memory.ept import DEFERRED_HIGH, LARGE, OWN_HIGH, RWX
from vmm.vtx.frame import GPA, QUALIFICATION, VECTORING_INFO
from vmm.vtx.vmcs_bits import EPT_NMI_UNBLOCKING


def ept_violation(root, slow):
    """Return the handler of EPT violations. root: hpa of the EPT PML4. slow(vcpu): for other violations."""
    return bind(_touch, root, slow)


@micropython.viper
def _touch(root: int, slow, vcpu) -> int:
    f = ptr32(vcpu)
    if int(f[VECTORING_INFO]) >> 31 == 0:
        if int(f[QUALIFICATION]) & EPT_NMI_UNBLOCKING == 0:
            gpa = int(f[GPA]) | int(f[GPA + 1]) << 32
            table = root
            shift = 39
            while shift > 12:
                t = ptr32(table + ((gpa >> shift & 511) << 3))
                low = int(t[0])
                if low & RWX == 0:
                    return int(slow(vcpu))
                if low & LARGE:
                    return int(slow(vcpu))
                table = (low & 0xFFFFF000) | (int(t[1]) & 0xFFFFF) << 32
                shift -= 9
            t = ptr32(table + ((gpa >> 12 & 511) << 3))
            high = int(t[1])
            if high & DEFERRED_HIGH:
                t[1] = high ^ DEFERRED_HIGH
                t[0] = int(t[0]) | high >> OWN_HIGH & RWX
                return 0
    return int(slow(vcpu))
