"""MSRs against flaws of speculative execution, offered to guests as far as the CPU has them.

IA32_PRED_CMD and IA32_FLUSH_CMD are commands and do not exit. IA32_SPEC_CTRL is swapped by the CPU through the VMCS's
MSR areas, from the guest's first value that is not 0, and no access exits then. Before that nothing is swapped, or only
the monitor's value is loaded at each exit. IA32_ARCH_CAPABILITIES shows those of the CPU's bits that apply to a guest.
Source: SDM Vol. 4; Vol. 3C, "Saving MSRs", "Loading MSRs".
"""

import struct

import uctypes
from micropython import const

from vmm.vtx import mitigations as m
from vmm.vtx import vmcs as v
from vmm.vtx.frame import GUEST_MSRS, HOST_MSRS

_ENTRY = const(16)  # bytes of an area's entry: index, 0, value
_FLUSH_L1D = const(1)


class SpecMsrs:
    """One guest's. wrmsr(index, value): the host's."""

    def __init__(self, msrs, mitigations, wrmsr):
        features = mitigations.features
        self._msrs = msrs
        self._mitigations = mitigations
        self._wrmsr = wrmsr
        self._allowed = 0
        self._own = False  # whether IA32_SPEC_CTRL is swapped, without exits
        if features.IBRS_IBPB:
            self._allowed |= m.SPEC_CTRL_IBRS | m.SPEC_CTRL_STIBP
            msrs.add(m.IA32_PRED_CMD, None, self._command)
        if features.STIBP:
            self._allowed |= m.SPEC_CTRL_STIBP
        if features.SSBD:
            self._allowed |= m.SPEC_CTRL_SSBD
        if self._allowed:
            msrs.add(m.IA32_SPEC_CTRL, self._read, self._write)
        if features.L1D_FLUSH:
            msrs.add(m.IA32_FLUSH_CMD, None, self._command)
        if features.ARCH_CAPABILITIES:
            msrs.store(m.IA32_ARCH_CAPABILITIES, _shown(mitigations.capabilities), writer=None)

    def attach(self, vcpu):
        """The vCPU whose MSRs these are; its controls have been written."""
        self._vcpu = vcpu
        frame = vcpu.frame_hpa
        self._guest = uctypes.bytearray_at(frame + GUEST_MSRS, 2 * _ENTRY)
        host = uctypes.bytearray_at(frame + HOST_MSRS, _ENTRY)
        struct.pack_into("<IIQ", self._guest, 0, m.IA32_SPEC_CTRL, 0, 0)
        struct.pack_into("<IIQ", self._guest, _ENTRY, m.IA32_FLUSH_CMD, 0, _FLUSH_L1D)
        struct.pack_into("<IIQ", host, 0, m.IA32_SPEC_CTRL, 0, self._mitigations.spec_ctrl)
        vcpu.write(v.VM_EXIT_MSR_STORE_ADDRESS, frame + GUEST_MSRS)
        vcpu.write(v.VM_EXIT_MSR_LOAD_ADDRESS, frame + HOST_MSRS)
        for index in (m.IA32_PRED_CMD, m.IA32_FLUSH_CMD):
            if index in self._msrs.writers:
                self._msrs.bitmap.set(index, True, False)
        self.reset()

    def reset(self):
        if self._allowed:
            self._put(0)
        self._switch(False)

    def _switch(self, own):
        """Start or end the swapping of IA32_SPEC_CTRL; set the areas' counts."""
        self._own = own
        swapped = 1 if own or self._mitigations.always_switch else 0
        flush = 1 if self._mitigations.flush_l1d else 0
        write = self._vcpu.write
        write(v.VM_EXIT_MSR_STORE_COUNT, 1 if own else 0)
        write(v.VM_EXIT_MSR_LOAD_COUNT, swapped)
        first = 0 if swapped else _ENTRY
        write(v.VM_ENTRY_MSR_LOAD_ADDRESS, self._vcpu.frame_hpa + GUEST_MSRS + first)
        write(v.VM_ENTRY_MSR_LOAD_COUNT, swapped + flush)
        if self._allowed:
            for access in (False, True):
                self._msrs.bitmap.set(m.IA32_SPEC_CTRL, access, not own)

    def _put(self, value):
        struct.pack_into("<Q", self._guest, 8, value)

    def _read(self, index):
        return struct.unpack_from("<Q", self._guest, 8)[0]

    def _write(self, index, value):
        if value & ~self._allowed:
            return False
        self._put(value)
        if value and not self._own:
            self._switch(True)
        return True

    def _command(self, index, value):
        """IA32_PRED_CMD and IA32_FLUSH_CMD where a policy watches them: bit 0 is the command."""
        if value & ~1:
            return False
        if value:
            self._wrmsr(index, value)
        return True


def _shown(capabilities):
    """IA32_ARCH_CAPABILITIES for guests. They run no guests of their own and need not flush the L1 cache."""
    shown = m.ArchCapabilities(capabilities.raw & sum([bits.mask for _, bits in capabilities.fields]))
    shown.SKIP_L1DFL_VMENTRY = 1
    return shown.raw
