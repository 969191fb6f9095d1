"""The MSRs of speculation control, offered to guests if the CPU has them.

IA32_PRED_CMD and IA32_FLUSH_CMD are commands and do not exit. IA32_SPEC_CTRL exits until a vCPU first writes a value
other than 0; from then on the CPU switches it by the VMCS's MSR areas and no access exits. Before that, the areas hold
it only if the monitor's own value has to be loaded at each exit. IA32_ARCH_CAPABILITIES shows those of the CPU's bits
that apply to a guest. Source: SDM Vol. 4; Vol. 3C, "Saving MSRs", "Loading MSRs".
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
    """The MSRs of speculation control of one guest; each vCPU has its own IA32_SPEC_CTRL.

    msrs: the Msrs that they are added to. wrmsr(index, value): writes the host's MSR.
    """

    def __init__(self, msrs, mitigations, wrmsr):
        features = mitigations.features
        self._msrs = msrs
        self._mitigations = mitigations
        self._wrmsr = wrmsr
        self._allowed = 0
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
        """Fill a vCPU's MSR areas. Call it after its VM-execution controls have been written."""
        frame = vcpu.frame_hpa
        guest = uctypes.bytearray_at(frame + GUEST_MSRS, 2 * _ENTRY)
        host = uctypes.bytearray_at(frame + HOST_MSRS, _ENTRY)
        struct.pack_into("<IIQ", guest, 0, m.IA32_SPEC_CTRL, 0, 0)
        struct.pack_into("<IIQ", guest, _ENTRY, m.IA32_FLUSH_CMD, 0, _FLUSH_L1D)
        struct.pack_into("<IIQ", host, 0, m.IA32_SPEC_CTRL, 0, self._mitigations.spec_ctrl)
        vcpu.write(v.VM_EXIT_MSR_STORE_ADDRESS, frame + GUEST_MSRS)
        vcpu.write(v.VM_EXIT_MSR_LOAD_ADDRESS, frame + HOST_MSRS)
        for index in (m.IA32_PRED_CMD, m.IA32_FLUSH_CMD):
            if index in self._msrs.writers:
                vcpu.msr_bitmap.set(index, True, False)
        self.reset(vcpu)

    def reset(self, vcpu):
        """Set the vCPU's IA32_SPEC_CTRL to 0, with exits."""
        if self._allowed:
            _put(vcpu, 0)
        self._switch(vcpu, False)

    def _switch(self, vcpu, own):
        """Set the areas' counts and the bitmap. own: the CPU switches IA32_SPEC_CTRL, and no access exits."""
        vcpu.has_spec_ctrl = own
        swapped = 1 if own or self._mitigations.always_switch else 0
        flush = 1 if self._mitigations.flush_l1d else 0
        write = vcpu.write
        write(v.VM_EXIT_MSR_STORE_COUNT, 1 if own else 0)
        write(v.VM_EXIT_MSR_LOAD_COUNT, swapped)
        first = 0 if swapped else _ENTRY
        write(v.VM_ENTRY_MSR_LOAD_ADDRESS, vcpu.frame_hpa + GUEST_MSRS + first)
        write(v.VM_ENTRY_MSR_LOAD_COUNT, swapped + flush)
        if self._allowed:
            for access in (False, True):
                vcpu.msr_bitmap.set(m.IA32_SPEC_CTRL, access, not own)

    def _read(self, vcpu, index):
        return struct.unpack("<Q", _value(vcpu))[0]

    def _write(self, vcpu, index, value):
        if value & ~self._allowed:
            return False
        _put(vcpu, value)
        if value and not vcpu.has_spec_ctrl:
            self._switch(vcpu, True)
        return True

    def _command(self, vcpu, index, value):
        """Write IA32_PRED_CMD or IA32_FLUSH_CMD, which exit under a policy only: bit 0 is the command."""
        if value & ~1:
            return False
        if value:
            self._wrmsr(index, value)
        return True


def _value(vcpu):
    """The vCPU's IA32_SPEC_CTRL in its VM-entry MSR-load area, as a bytearray."""
    return uctypes.bytearray_at(vcpu.frame_hpa + GUEST_MSRS + 8, 8)


def _put(vcpu, value):
    struct.pack_into("<Q", _value(vcpu), 0, value)


def _shown(capabilities):
    """Return IA32_ARCH_CAPABILITIES for guests, with SKIP_L1DFL_VMENTRY: without VMX they need not flush the L1."""
    shown = m.ArchCapabilities(capabilities.raw & sum([bits.mask for _, bits in capabilities.fields]))
    shown.SKIP_L1DFL_VMENTRY = 1
    return shown.raw
