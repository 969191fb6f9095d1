"""The program's registers and flags during a BIOS call, from the vCPU and from its stack."""

import struct

from vmm.vtx.vmcs import GUEST_SS_ACCESS_RIGHTS, GUEST_SS_BASE
from vmm.vtx.vmcs_bits import RIGHTS_DB
from vmm.vtx.x86 import RFLAGS_CF, RFLAGS_ZF


class Call:
    """The registers of one call. eax, flags: returned to the program; the other registers are the vCPU's."""

    def __init__(self, vcpu):
        self.vcpu = vcpu
        sp = vcpu.rsp & (0xFFFFFFFF if vcpu.read(GUEST_SS_ACCESS_RIGHTS) & RIGHTS_DB else 0xFFFF)
        self._at = vcpu.read(GUEST_SS_BASE) + sp
        self._paged = vcpu.cr0 >> 31
        data = vcpu.peek(self._at, 10) if self._paged else vcpu.vm.memory.read(self._at, 10)
        self.eax, self._return, self.flags = struct.unpack("<IIH", data)
        self.again = False

    @property
    def ah(self):
        return self.eax >> 8 & 0xFF

    @ah.setter
    def ah(self, value):
        self.eax = self.eax & 0xFFFF00FF | value << 8

    @property
    def al(self):
        return self.eax & 0xFF

    @al.setter
    def al(self, value):
        self.eax = self.eax & 0xFFFFFF00 | value

    @property
    def ax(self):
        return self.eax & 0xFFFF

    @ax.setter
    def ax(self, value):
        self.eax = self.eax & 0xFFFF0000 | value

    def carry(self, on):
        self.flags = self.flags & ~RFLAGS_CF | (RFLAGS_CF if on else 0)

    def zero(self, on):
        self.flags = self.flags & ~RFLAGS_ZF | (RFLAGS_ZF if on else 0)

    def put(self, **registers):
        """Set 16-bit registers of the vCPU, such as cx=1; the upper bits stay."""
        for name, value in registers.items():
            name = "r" + name
            setattr(self.vcpu, name, getattr(self.vcpu, name) & ~0xFFFF | value & 0xFFFF)

    def finish(self):
        """Store the flags on the program's stack. Returns the new EAX."""
        vcpu = self.vcpu
        if self.again:
            vcpu.rflags |= RFLAGS_CF  # for the routine
        data = struct.pack("<IIH", self.eax, self._return, self.flags)
        if self._paged:
            vcpu.poke(self._at, data)
        else:
            vcpu.vm.memory.write(self._at, data)
        return self.eax
