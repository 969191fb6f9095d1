"""RDMSR and WRMSR: default-deny. What is not listed is #GP(0), and counted.

MSRs that the VMCS or the CPU keeps for the guest (EFER, PAT, FS and GS base, SYSENTER,
SYSCALL ones, TSC reads) never exit: vmm/vtx/msr_bitmap.py. Source: SDM Vol. 4,
"Model-Specific Registers (MSRs)".
"""

import micropython
from micropython import const

from vmm import tally
from vmm.devices.lapic_registers import DEADLINE
from vmm.vtx import events, reasons
from vmm.vtx import vmcs as v
from vmm.vtx.frame import (
    APIC_PAGE,
    DATUM,
    DIRTY,
    DIRTY_TSC_OFFSET,
    RAX,
    RCX,
    RDX,
    STORED,
    STORED_MSRS,
    TSC_OFFSET,
)
from vmm.vtx.x86 import CR0_PG, EFER_LMA, EFER_LME, IA32_EFER

IA32_TSC = const(0x10)
IA32_APIC_BASE = const(0x1B)
IA32_TSC_ADJUST = const(0x3B)
IA32_TSC_DEADLINE = const(0x6E0)
IA32_XSS = const(0xDA0)
IA32_TSC_AUX = const(0xC0000103)
_X2APIC_FIRST = const(0x800)  # of 64
_X2APIC_ICR = const(0x830)

# In the CPU while the vCPU is loaded; read and written there without an exit.
LIVE = (0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084, 0xC0000102)  # STAR LSTAR CSTAR FMASK KERNEL_GS_BASE
# In the VMCS.
_IN_VMCS = {
    0x174: v.GUEST_IA32_SYSENTER_CS,
    0x175: v.GUEST_IA32_SYSENTER_ESP,
    0x176: v.GUEST_IA32_SYSENTER_EIP,
    0x277: v.GUEST_IA32_PAT,
    0xC0000080: v.GUEST_IA32_EFER,
    0xC0000100: v.GUEST_FS_BASE,
    0xC0000101: v.GUEST_GS_BASE,
}


_PLAIN = "any value"
_WRITTEN_BITS = const(4)  # of the keys of WRMSR, which are few (Keys)

_MTRR_VARIABLE = const(8)
_MTRR_FIXED = (0x250, 0x258, 0x259) + tuple(range(0x268, 0x270))
_MTRR_DEF_TYPE = const(0x2FF)
_MTRR_TYPES = (0, 1, 4, 5, 6)  # UC, WC, WT, WP, WB
_MISC_ENABLE_RESET = const(1 << 0 | 1 << 11 | 1 << 12)  # fast strings; neither BTS nor PEBS
_DEBUGCTL_ALLOWED = const(3)  # LBR, BTF


_EFER_ALLOWED = const(1 << 0 | 1 << 8 | 1 << 10 | 1 << 11)  # SCE, LME, LMA, NXE
_PAT = const(0x277)
_PAT_TYPES = (0, 1, 4, 5, 6, 7)
_HIGH_ZERO = (0x174, 0xC0000084, IA32_TSC_AUX)  # SYSENTER_CS, FMASK: 32 bits
_ADDRESSES = (0x175, 0x176, 0xC0000082, 0xC0000083, 0xC0000100, 0xC0000101, 0xC0000102)


def _valid_for_cpu(index, value):
    """Whether WRMSR by the guest itself would take the value, for MSRs that do not exit as a rule."""
    if index in _ADDRESSES:
        return value >> 47 in (0, 0x1FFFF)  # canonical
    if index in _HIGH_ZERO:
        return not value >> 32
    if index == _PAT:
        for i in range(8):
            if value >> 8 * i & 0xFF not in _PAT_TYPES:
                return False
    return True


def _fixed_range(index, value):
    """IA32_MTRR_FIX...: eight types."""
    for shift in range(0, 64, 8):
        if value >> shift & 0xFF not in _MTRR_TYPES:
            return False
    return True


def _default_type(index, value):
    """IA32_MTRR_DEF_TYPE: E, FE, type."""
    return not value & ~0xCFF and value & 0xFF in _MTRR_TYPES


def _microcode(host_rdmsr):
    """The host's IA32_BIOS_SIGN_ID; 0 where the CPU (an emulated one) has none and answers #GP."""
    try:
        return host_rdmsr(0x8B)
    except Exception:
        return 0


class Msrs:
    """One guest's MSRs. Each vCPU has values of its own.

    readers {index: f(vcpu, index) -> value}, writers {index: f(vcpu, index, value) -> False for #GP}.
    x2apic: those of the local APIC in x2APIC mode, as (low(vcpu, index) or -1 for #GP, high(vcpu, index),
    write(vcpu, index, low, high) -> True, or False for #GP): in halves, since their exits must not make big ints.
    Devices add theirs. unclaimed {(index, write): count}.
    """

    def __init__(self, host_rdmsr, live, width, xss_allowed=0):
        """live: MSRs that follow the vCPU in the CPU. width: bits of a gpa. xss_allowed: components that IA32_XSS may
        name."""
        self.readers = {}
        self.writers = {}
        self.x2apic = None
        self.unclaimed = {}
        self._at = {}  # index: word of the frame
        self._initial = {}
        self._getter, self._putter = self.get, self.put  # one object each, not one for each MSR
        self._width = width
        self._xss_allowed = xss_allowed
        self._live = live
        self._fill(host_rdmsr)

    def open(self, bitmap):
        """Let a vCPU reach what is its own in the CPU without exits. bitmap: vmm.vtx.msr_bitmap.Bitmap."""
        for index in self._live:
            bitmap.set(index, False, False)
            bitmap.set(index, True, index == IA32_XSS)
        for index in _IN_VMCS:
            bitmap.set(index, False, False)
            bitmap.set(index, True, False)
        bitmap.set(IA32_TSC, False, False)

    def _fill(self, host_rdmsr):
        self.add(IA32_TSC, _tsc, self._write_tsc)
        self.store(IA32_TSC_ADJUST, writer=self._write_tsc_adjust)
        self.store(0x17, writer=None)  # IA32_PLATFORM_ID
        self.store(0x3A, 1, writer=None)  # IA32_FEATURE_CONTROL: locked, nothing on
        self.store(0x8B, _microcode(host_rdmsr), writer=self._ignore)  # IA32_BIOS_SIGN_ID
        self.add(0x79, None, self._ignore)  # IA32_BIOS_UPDT_TRIG: the host's microcode stays
        self.store(0xFE, _MTRR_VARIABLE | 1 << 8 | 1 << 10, writer=None)  # IA32_MTRRCAP
        writer = self._valid_writer(_fixed_range)
        for index in _MTRR_FIXED:
            self.store(index, 0, writer)
        writer = self._valid_writer(self._variable_range)
        for index in range(0x200, 0x200 + 2 * _MTRR_VARIABLE):
            self.store(index, 0, writer)
        self.store(_MTRR_DEF_TYPE, 0, self._valid_writer(_default_type))
        self.store(0x179, writer=None)  # IA32_MCG_CAP: no banks
        self.store(0x17A)  # IA32_MCG_STATUS
        self.store(0x1A0, _MISC_ENABLE_RESET)  # IA32_MISC_ENABLE
        self.add(0x1D9, lambda vcpu, index: vcpu.read(v.GUEST_IA32_DEBUGCTL), self._write_debugctl)
        self.store(0xCE, writer=None)  # MSR_PLATFORM_INFO
        self.store(0x34, writer=None)  # MSR_SMI_COUNT
        self.store(0x140)  # MSR_MISC_FEATURE_ENABLES
        for index in _IN_VMCS:
            self.add(index, _read_vmcs, _write_vmcs)
        for index in self._live:
            self.add(index, _read_live, self._write_xss if index == IA32_XSS else _write_live)

    def add(self, index, reader, writer):
        """Claim an MSR; None for an access that is #GP."""
        if index in self.readers or index in self.writers:
            raise ValueError("MSR %#x is claimed already" % index)
        if reader:
            self.readers[index] = reader
        if writer:
            self.writers[index] = writer

    def store(self, index, initial=0, writer=_PLAIN):
        """An MSR whose value lies in memory, so that RDMSR costs little. writer as for add(), which put()s
        what shall be read then; without one any value is kept."""
        if len(self._at) == STORED_MSRS:
            raise ValueError("more than %d stored MSRs" % STORED_MSRS)
        self._at[index] = STORED + 2 * len(self._at)
        self._initial[index] = initial
        self.add(index, self._getter, self._putter if writer is _PLAIN else writer)

    def get(self, vcpu, index):
        """The value of a stored MSR."""
        return _stored(vcpu, self._at[index])

    def put(self, vcpu, index, value):
        """Set the value of a stored MSR."""
        _store(vcpu, self._at[index], value)

    def _valid_writer(self, valid):
        """A writer that keeps what valid(index, value) is true for; the rest is #GP."""

        def write(vcpu, index, value):
            if not valid(index, value):
                return False
            self.put(vcpu, index, value)

        return write

    def reset(self, vcpu):
        """The values after power-up."""
        for index, value in self._initial.items():
            self.put(vcpu, index, value)

    def read(self, vcpu, index):
        """Return a vCPU's value. KeyError for an MSR that it does not have."""
        if index >> 6 == _X2APIC_FIRST >> 6:
            low, high, _ = self.x2apic
            value = low(vcpu, index)
            return False if value < 0 else high(vcpu, index) << 32 | value
        return self.readers[index](vcpu, index)

    def write(self, vcpu, index, value):
        """Write as the vCPU would; False where that is #GP. KeyError as for read."""
        if index >> 6 == _X2APIC_FIRST >> 6:
            return self.x2apic[2](vcpu, index, value & 0xFFFFFFFF, value >> 32)
        return self.writers[index](vcpu, index, value) is not False

    # -- handlers

    def install(self, exits):
        """Stored MSRs are read, and TSC_ADJUST is written, by handlers of their own."""
        exits.add(reasons.RDMSR, self.read_exit)
        exits.add(reasons.WRMSR, self.write_exit)
        exits.keyed(reasons.RDMSR, 4 * RCX, 0xFFFFFFFF)
        exits.keyed(reasons.WRMSR, 4 * RCX, 0xFFFFFFFF, _WRITTEN_BITS)
        pairs = []
        for index, at in self._at.items():
            pairs.extend((index, at))
        exits.key_many(reasons.RDMSR, _read_words, pairs)
        exits.key(reasons.WRMSR, IA32_TSC_ADJUST, _write_tsc_adjust, self._at[IA32_TSC_ADJUST])

    @micropython.viper
    def read_exit(self, vcpu) -> int:
        """RDMSR: EDX:EAX from the MSR in ECX, or #GP(0)."""
        f = ptr32(vcpu)
        index = int(f[RCX])
        if index >> 6 == _X2APIC_FIRST >> 6:
            pair = self.x2apic
            low = int(pair[0](vcpu, index))
            if low < 0:
                return int(events.general_protection(vcpu))
            high = 0
            if index == _X2APIC_ICR:  # the only one of 64 bits
                high = int(pair[1](vcpu, index))
        else:
            reader = self.readers.get(index)
            if not reader:
                return int(self._refuse(vcpu, index, False))
            low = int(reader(vcpu, index))
            high = int(uint(low) >> 32)
        f[RAX] = low
        f[RAX + 1] = 0
        f[RDX] = high
        f[RDX + 1] = 0
        return 1

    @micropython.viper
    def write_exit(self, vcpu) -> int:
        """WRMSR: the MSR in ECX from EDX:EAX, or #GP(0)."""
        f = ptr32(vcpu)
        index = int(f[RCX])
        if index >> 6 == _X2APIC_FIRST >> 6:
            pair = self.x2apic
            done = bool(pair[2](vcpu, index, int(f[RAX]), int(f[RDX])))
        else:
            done = bool(self._write_whole(vcpu, index))
        if done:
            return 1
        return int(events.general_protection(vcpu))

    def _write_whole(self, vcpu, index):
        """The writer that takes 64 bits, which may be a big int; False for #GP."""
        writer = self.writers.get(index)
        if writer is None:
            self._count(index, True)
            return False
        return writer(vcpu, index, (vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF) is not False

    def _refuse(self, vcpu, index, write):
        self._count(index, write)
        return events.general_protection(vcpu)

    def _count(self, index, write):
        tally.count(self.unclaimed, (index, write))

    # -- what they do

    def _ignore(self, vcpu, index, value):
        pass

    def _variable_range(self, index, value):
        """IA32_MTRR_PHYSBASEn, and PHYSMASKn at the odd numbers."""
        beyond = value >> self._width
        if index & 1:
            return not beyond and not value & 0x7FF
        return not beyond and not value & 0xF00 and value & 0xFF in _MTRR_TYPES

    def _write_tsc(self, vcpu, index, value):
        """The vCPU's TSC jumps, and TSC_ADJUST with it; the time of its devices does not."""
        clock = vcpu.clock
        delta = value - clock.now() - clock.skew
        clock.skew += delta
        self.put(vcpu, IA32_TSC_ADJUST, self.get(vcpu, IA32_TSC_ADJUST) + delta)
        vcpu.lapic.timer.follow_tsc()

    def _write_tsc_adjust(self, vcpu, index, value):
        vcpu.clock.skew += value - self.get(vcpu, index)
        self.put(vcpu, index, value)
        vcpu.lapic.timer.follow_tsc()

    def _write_debugctl(self, vcpu, index, value):
        if value & ~_DEBUGCTL_ALLOWED:
            return False
        vcpu.write(v.GUEST_IA32_DEBUGCTL, value)
        return True

    def _write_xss(self, vcpu, index, value):
        if value & ~self._xss_allowed:
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


def _read_live(vcpu, index):
    return vcpu.msr(index)


def _write_live(vcpu, index, value):
    if not _valid_for_cpu(index, value):
        return False
    vcpu.msr(index, value)
    return True


@micropython.viper
def _stored(vcpu, at: int) -> uint:
    f = ptr32(vcpu)
    return uint(f[at]) | uint(f[at + 1]) << uint(32)


@micropython.viper
def _store(vcpu, at: int, value: int):
    f = ptr32(vcpu)
    f[at] = value
    f[at + 1] = value >> 32


@micropython.viper
def _read_words(vcpu) -> int:
    """Handler of RDMSR of a stored MSR: frame.DATUM is its first word."""
    f = ptr32(vcpu)
    at = int(f[DATUM])
    f[RAX] = f[at]
    f[RDX] = f[at + 1]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1


@micropython.viper
def _write_tsc_adjust(vcpu) -> int:
    """Handler of WRMSR of IA32_TSC_ADJUST: the vCPU's TSC moves by the difference. frame.DATUM: as for RDMSR."""
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
