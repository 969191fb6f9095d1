"""The MSRs of the processor itself: TSC, EFER, PAT, MTRRs, SYSENTER and SYSCALL, and a few others that kernels read.

Accesses to those in the VMCS or in the CPU do not exit (vmm/vtx/msr_bitmap.py) unless a policy watches them.
Source: SDM Vol. 4, "Model-Specific Registers (MSRs)"; Vol. 3A, "Memory Type Range Registers (MTRRs)".
"""

import micropython
from micropython import const
from vmx import bind, vmwrite

from vmm.devices.lapic_registers import DEADLINE
from vmm.vtx import reasons
from vmm.vtx import vmcs as v
from vmm.vtx.frame import APIC_PAGE, DATUM, DIRTY, DIRTY_TSC_OFFSET, RAX, RDX, TSC_OFFSET
from vmm.vtx.x86 import (
    CR0_PG,
    DEBUGCTL_BTF,
    DEBUGCTL_LBR,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    IA32_BIOS_SIGN_ID,
    IA32_CSTAR,
    IA32_EFER,
    IA32_FMASK,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
    IA32_LSTAR,
    IA32_MCG_CAP,
    IA32_MCG_STATUS,
    IA32_PAT,
    IA32_STAR,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_EIP,
    IA32_SYSENTER_ESP,
    IA32_TSC,
    IA32_TSC_ADJUST,
    IA32_TSC_AUX,
    IA32_XSS,
)

# In the CPU while the vCPU is loaded; the guest accesses them there without an exit.
LIVE = (IA32_STAR, IA32_LSTAR, IA32_CSTAR, IA32_FMASK, IA32_KERNEL_GS_BASE)
# In the VMCS's guest-state area.
_IN_VMCS = {
    IA32_SYSENTER_CS: v.GUEST_IA32_SYSENTER_CS,
    IA32_SYSENTER_ESP: v.GUEST_IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP: v.GUEST_IA32_SYSENTER_EIP,
    IA32_PAT: v.GUEST_IA32_PAT,
    IA32_EFER: v.GUEST_IA32_EFER,
    IA32_FS_BASE: v.GUEST_FS_BASE,
    IA32_GS_BASE: v.GUEST_GS_BASE,
}

_MTRR_VARIABLE = const(8)
_MTRR_FIXED = (0x250, 0x258, 0x259) + tuple(range(0x268, 0x270))
_MTRR_DEF_TYPE = const(0x2FF)
_MTRR_TYPES = (0, 1, 4, 5, 6)  # UC, WC, WT, WP, WB
_MISC_ENABLE = const(0x1A0)
_FAST_STRINGS = const(1 << 0)
_NO_BTS_NO_PEBS = const(1 << 11 | 1 << 12)
_DEBUGCTL_ALLOWED = const(DEBUGCTL_LBR | DEBUGCTL_BTF)


_EFER_ALLOWED = const(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE)
_PAT_TYPES = (0, 1, 4, 5, 6, 7)
_HIGH_ZERO = (IA32_SYSENTER_CS, IA32_FMASK, IA32_TSC_AUX)  # 32 bits
_ADDRESSES = (
    IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP,
    IA32_LSTAR,
    IA32_CSTAR,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_KERNEL_GS_BASE,
)


# What WRMSR checks of a value: nothing, a canonical address, bits 63:32 clear.
_ANY = const(0)
_CANONICAL = const(1)
_LOW = const(2)


def _limit(index):
    """The check of _valid_for_cpu() for an MSR other than the PAT."""
    return _CANONICAL if index in _ADDRESSES else _LOW if index in _HIGH_ZERO else _ANY


def _valid_for_cpu(index, value):
    """Whether WRMSR without an exit would accept the value, for MSRs that exit under a policy only."""
    if index in _ADDRESSES:
        return value >> 47 in (0, 0x1FFFF)  # canonical
    if index in _HIGH_ZERO:
        return not value >> 32
    if index == IA32_PAT:
        for i in range(8):
            if value >> 8 * i & 0xFF not in _PAT_TYPES:
                return False
    return True


def _fixed_range(index, value):
    """Whether IA32_MTRR_FIX... may have the value: eight memory types."""
    for shift in range(0, 64, 8):
        if value >> shift & 0xFF not in _MTRR_TYPES:
            return False
    return True


def _default_type(index, value):
    """Whether IA32_MTRR_DEF_TYPE may have the value: E, FE, a memory type."""
    return not value & ~0xCFF and value & 0xFF in _MTRR_TYPES


def _microcode(host_rdmsr):
    """The host's IA32_BIOS_SIGN_ID; 0 on an emulated CPU without it, where RDMSR is #GP."""
    try:
        return host_rdmsr(IA32_BIOS_SIGN_ID)
    except Exception:
        return 0


def _misc_enable(host_rdmsr):
    """IA32_MISC_ENABLE: fast strings as on the host, no BTS, no PEBS.

    Kernels copy by REP MOVSB if fast strings are on. Bochs has no such MSR, and executes each byte of REP MOVSB at the
    cost of an instruction: there the bit is clear.
    """
    try:
        return host_rdmsr(_MISC_ENABLE) & _FAST_STRINGS | _NO_BTS_NO_PEBS
    except Exception:
        return _NO_BTS_NO_PEBS


class CpuMsrs:
    """The processor's MSRs of one guest. msrs: the Msrs that they are added to; other arguments as for Msrs."""

    def __init__(self, msrs, host_rdmsr, live, width):
        self._msrs = msrs
        self._width = width
        self._live = live
        self._fill(host_rdmsr)

    def open(self, bitmap):
        """Clear the bitmap's bits of MSRs in the CPU and in the VMCS, as Msrs.open()."""
        for index in self._live:
            bitmap.set(index, False, False)
            bitmap.set(index, True, index == IA32_XSS)
        for index in _IN_VMCS:
            bitmap.set(index, False, False)
            bitmap.set(index, True, False)
        bitmap.set(IA32_TSC, False, False)

    def _fill(self, host_rdmsr):
        add, store = self._msrs.add, self._msrs.store
        add(IA32_TSC, _tsc, self._write_tsc)
        store(IA32_TSC_ADJUST, writer=self._write_tsc_adjust)
        store(0x17, writer=None)  # IA32_PLATFORM_ID
        store(0x3A, 1, writer=None)  # IA32_FEATURE_CONTROL: locked, nothing on
        store(IA32_BIOS_SIGN_ID, _microcode(host_rdmsr), writer=self._ignore)
        add(0x79, None, self._ignore)  # IA32_BIOS_UPDT_TRIG: the host's microcode stays
        store(0xFE, _MTRR_VARIABLE | 1 << 8 | 1 << 10, writer=None)  # IA32_MTRRCAP
        writer = self._valid_writer(_fixed_range)
        for index in _MTRR_FIXED:
            store(index, 0, writer)
        writer = self._valid_writer(self._variable_range)
        for index in range(0x200, 0x200 + 2 * _MTRR_VARIABLE):
            store(index, 0, writer)
        store(_MTRR_DEF_TYPE, 0, self._valid_writer(_default_type))
        store(IA32_MCG_CAP, writer=None)  # no banks
        store(IA32_MCG_STATUS)
        store(_MISC_ENABLE, _misc_enable(host_rdmsr))
        add(0x1D9, lambda vcpu, index: vcpu.read(v.GUEST_IA32_DEBUGCTL), self._write_debugctl)
        store(0xCE, writer=None)  # MSR_PLATFORM_INFO
        store(0x34, writer=None)  # MSR_SMI_COUNT
        store(0x140)  # MSR_MISC_FEATURE_ENABLES
        halves = self._msrs.halves
        for index, field in _IN_VMCS.items():
            add(index, _read_vmcs, _write_vmcs)
            if index not in (IA32_EFER, IA32_PAT):
                halves[index] = bind(_write_field, vmwrite, field, _limit(index))
        for index in self._live:
            add(index, _read_live, self._write_xss if index == IA32_XSS else _write_live)
            if index != IA32_XSS:
                halves[index] = bind(_write_msr, index, _limit(index))

    def install(self, exits):
        """Set the handler of WRMSR to IA32_TSC_ADJUST."""
        exits.key(reasons.WRMSR, IA32_TSC_ADJUST, _write_tsc_adjust, self._msrs.word(IA32_TSC_ADJUST))

    def _valid_writer(self, valid):
        """Return a writer that stores values for which valid(index, value) is true; others are #GP."""

        def write(vcpu, index, value):
            if not valid(index, value):
                return False
            self._msrs.put(vcpu, index, value)

        return write

    def _ignore(self, vcpu, index, value):
        pass

    def _variable_range(self, index, value):
        """Whether IA32_MTRR_PHYSBASEn (even index) or IA32_MTRR_PHYSMASKn (odd index) may have the value."""
        beyond = value >> self._width
        if index & 1:
            return not beyond and not value & 0x7FF
        return not beyond and not value & 0xF00 and value & 0xFF in _MTRR_TYPES

    def _write_tsc(self, vcpu, index, value):
        """Set the vCPU's TSC; IA32_TSC_ADJUST changes by the same amount. Its devices' time does not change."""
        clock = vcpu.clock
        delta = value - clock.now() - clock.skew
        clock.skew += delta
        self._msrs.put(vcpu, IA32_TSC_ADJUST, self._msrs.get(vcpu, IA32_TSC_ADJUST) + delta)
        vcpu.lapic.timer.follow_tsc()

    def _write_tsc_adjust(self, vcpu, index, value):
        vcpu.clock.skew += value - self._msrs.get(vcpu, index)
        self._msrs.put(vcpu, index, value)
        vcpu.lapic.timer.follow_tsc()

    def _write_debugctl(self, vcpu, index, value):
        if value & ~_DEBUGCTL_ALLOWED:
            return False
        vcpu.write(v.GUEST_IA32_DEBUGCTL, value)
        return True

    def _write_xss(self, vcpu, index, value):
        if value:  # guests have no supervisor state components
            return False
        vcpu.msr(index, value)
        return True


def _tsc(vcpu, index):
    return vcpu.clock.now() + vcpu.clock.skew & 0xFFFFFFFFFFFFFFFF


def _read_vmcs(vcpu, index):
    return vcpu.read(_IN_VMCS[index])


def _write_vmcs(vcpu, index, value):
    if not _valid_for_cpu(index, value):
        return False
    if index == IA32_EFER:
        return _write_efer(vcpu, value)
    vcpu.write(_IN_VMCS[index], value)
    return True


def _write_efer(vcpu, value):
    old = vcpu.efer
    if value & ~_EFER_ALLOWED or ((value ^ old) & EFER_LME and vcpu.cr0 & CR0_PG):
        return False
    vcpu.efer = value & ~EFER_LMA | old & EFER_LMA
    return True


# WRMSR of an MSR that exits under a policy only. In bytecode it takes 5,000 ticks more.
@micropython.viper
def _write_field(vmwrite, field: int, limit: int, vcpu, low: int, high: int) -> int:
    top = high >> 15
    if limit == _CANONICAL and top != 0 and top != 0x1FFFF or limit == _LOW and high:
        return 0
    vmwrite(vcpu, field, high << 32 | low)
    return 1


@micropython.viper
def _write_msr(index: int, limit: int, vcpu, low: int, high: int) -> int:
    top = high >> 15
    if limit == _CANONICAL and top != 0 and top != 0x1FFFF or limit == _LOW and high:
        return 0
    vcpu.msr(index, high << 32 | low)
    return 1


def _read_live(vcpu, index):
    return vcpu.msr(index)


def _write_live(vcpu, index, value):
    if not _valid_for_cpu(index, value):
        return False
    vcpu.msr(index, value)
    return True


@micropython.viper
def _write_tsc_adjust(vcpu) -> int:
    """Handler of WRMSR of IA32_TSC_ADJUST: the vCPU's TSC changes by the difference. frame.DATUM: as for RDMSR."""
    f = ptr32(vcpu)
    at = int(f[DATUM])
    low = int(f[RAX])
    high = int(f[RDX])
    offset = int(f[TSC_OFFSET]) | int(f[TSC_OFFSET + 1]) << 32
    offset += (high << 32 | low) - (int(f[at + 1]) << 32 | int(f[at]))
    f[at] = low
    f[at + 1] = high
    f[TSC_OFFSET] = offset
    f[TSC_OFFSET + 1] = offset >> 32
    f[DIRTY] |= DIRTY_TSC_OFFSET
    page = ptr32(f[APIC_PAGE])
    if page[DEADLINE // 4] or page[DEADLINE // 4 + 1]:
        vcpu.lapic.timer.follow_tsc()
    return 1
