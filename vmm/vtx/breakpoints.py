"""The guest's breakpoints (DR0-DR3) on accesses that the monitor emulates.

The CPU compares its own accesses with DR0-DR3; the monitor's are compared here: operands in memory
(vmm/memory/linear.py) and ports. A match becomes a pending debug exception when the instruction is completed, so that
#DB is raised where the CPU would raise it, also after MOV SS blocking. The advance in C checks whether DR7 enables a
breakpoint; if not, nothing here is called. Source: SDM Vol. 3B, "Debug Control Register (DR7)", "Data Memory and I/O
Breakpoint Exception Conditions"; Vol. 3C, "Pending Debug Exceptions".
"""

from micropython import const

from vmm import verdict
from vmm.vtx import reasons
from vmm.vtx.vmcs import GUEST_DR7, GUEST_PENDING_DEBUG_EXCEPTIONS
from vmm.vtx.vmcs_bits import IO_STRING, PENDING_ENABLED
from vmm.vtx.x86 import CR4_DE

ENABLES = const(0xFF)  # of DR7: L0, G0 to L3, G3
_BYTES = (1, 2, 8, 4)  # by LENn

# R/Wn
_WRITES = const(1)
_PORTS = const(2)
_READS_AND_WRITES = const(3)


def matching(dr7, addresses, first, size, kinds):
    """Pending debug exceptions for an access to `size` bytes from `first` on: B0-B3, and bit 12; 0: no enabled
    breakpoint matches.

    addresses: DR0 to DR3. kinds: the R/Wn values that match this access. As on the CPU, if an enabled breakpoint
    matches, disabled ones that match are reported as well.
    """
    hits = 0
    enabled = 0
    for n in range(4):
        control = dr7 >> 16 + 4 * n
        if control & 3 in kinds:
            length = _BYTES[control >> 2 & 3]
            start = addresses[n] & ~(length - 1)
            if first < start + length and start < first + size:
                hits |= 1 << n
                if dr7 >> 2 * n & 3:
                    enabled = PENDING_ENABLED
    return hits | enabled if enabled else 0


class Breakpoints:
    """The breakpoints of one vCPU. Since begin(): `armed`, whether DR7 enables one; `hits`, matches of the
    instruction."""

    def __init__(self):
        self.armed = 0
        self.hits = 0
        self._dr7 = 0
        self._addresses = ()
        self._ports = False
        self._entry = 0  # host TSC of the entry whose exit the hits belong to

    def reset(self):
        self.armed = self.hits = 0

    def begin(self, vcpu):
        """Begin an instruction that the monitor emulates, before its accesses."""
        self.hits = 0
        self._dr7 = vcpu.read(GUEST_DR7)
        self.armed = self._dr7 & ENABLES
        if self.armed:
            self._addresses = [vcpu.dr(n) for n in range(4)]
            self._ports = bool(vcpu.cr4 & CR4_DE)
            self._entry = vcpu.entry_tsc

    def memory(self, gva, size, write):
        """Compare an operand in memory, after the checks of its access: linear address and bytes."""
        if self.armed:
            kinds = (_WRITES, _READS_AND_WRITES) if write else (_READS_AND_WRITES,)
            self.hits |= matching(self._dr7, self._addresses, gva, size, kinds)

    def port(self, port, size):
        """Compare an access to a port."""
        if self._ports and self.armed:
            self.hits |= matching(self._dr7, self._addresses, port, size, (_PORTS,))

    def completed(self, vcpu):
        """Handler of slot COMPLETED: RIP has been advanced, and DR7 enables a breakpoint."""
        q = vcpu.qualification
        if vcpu.reason == reasons.IO_INSTRUCTION and not q & IO_STRING:
            self.begin(vcpu)
            self.port(q >> 16, (q & 7) + 1)
        if self.hits and self._entry == vcpu.entry_tsc:
            pending = vcpu.read(GUEST_PENDING_DEBUG_EXCEPTIONS)
            vcpu.write(GUEST_PENDING_DEBUG_EXCEPTIONS, pending | self.hits)
        self.hits = 0
        return verdict.RESUME
