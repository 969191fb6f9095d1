"""RDMSR and WRMSR: default-deny. What is not listed is #GP(0), and counted.

MSRs that the VMCS or the CPU keeps for the guest (EFER, PAT, FS and GS base, SYSENTER,
SYSCALL ones, TSC reads) never exit: vmm/vtx/msr_bitmap.py. Source: SDM Vol. 4,
"Model-Specific Registers (MSRs)".
"""

from array import array

import micropython
import uctypes
from micropython import const

from vmm import tally
from vmm.vtx import events, reasons
from vmm.vtx import vmcs as v
from vmm.vtx.frame import DATUM, DIRTY, DIRTY_TSC_OFFSET, RAX, RCX, RDX, TSC_OFFSET
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


_STORED = const(64)  # MSRs that store() has room for
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


def _nothing():
    """What follows a jump of the TSC where nothing waits for it."""


class Msrs:
    """One guest's MSRs.

    readers {index: f(index) -> value}, writers {index: f(index, value) -> False for #GP}.
    x2apic: those of the local APIC in x2APIC mode, as (low(index) or -1 for #GP, high(index), write(index, low, high)
    -> True, or False for #GP): in halves, since their exits must not make big ints.
    Devices add theirs. unclaimed {(index, write): count}.
    """

    def __init__(self, bitmap, host_rdmsr, clock, live):
        self.bitmap = bitmap
        self.readers = {}
        self.writers = {}
        self.x2apic = None
        self.unclaimed = {}
        self._clock = clock
        self._at = {}
        self._initial = {}
        self._getter, self._putter = self.get, self.put  # one object each, not one for each MSR
        self._words = array("I", bytes(8 * _STORED))
        self._jump = array("I", [0, 0])
        self._tsc_jumped = _nothing
        self._vcpu = None
        self._xss_allowed = 0
        for index in live:
            bitmap.set(index, False, False)
            bitmap.set(index, True, index == IA32_XSS)
        for index in _IN_VMCS:
            bitmap.set(index, False, False)
            bitmap.set(index, True, False)
        bitmap.set(IA32_TSC, False, False)
        self._fill(host_rdmsr)

    def _fill(self, host_rdmsr):
        clock = self._clock
        self.add(IA32_TSC, lambda i: clock.now() + clock.skew & 0xFFFFFFFFFFFFFFFF, self._write_tsc)
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
        self.add(0x1D9, lambda i: self._vcpu.read(v.GUEST_IA32_DEBUGCTL), self._write_debugctl)
        self.store(0xCE, writer=None)  # MSR_PLATFORM_INFO
        self.store(0x34, writer=None)  # MSR_SMI_COUNT
        self.store(0x140)  # MSR_MISC_FEATURE_ENABLES
        reader, writer = self._read_vmcs, self._write_vmcs
        for index in _IN_VMCS:
            self.add(index, reader, writer)

    def attach(self, vcpu, xss_allowed):
        """The vCPU whose MSRs these are. xss_allowed: components that IA32_XSS may name."""
        self._vcpu = vcpu
        self._xss_allowed = xss_allowed
        reader, writer = vcpu.msr, self._write_live
        for index in vcpu.live_msrs:
            self.add(index, reader, self._write_xss if index == IA32_XSS else writer)

    def add(self, index, reader, writer):
        """Claim an MSR; None for an access that is #GP."""
        if index in self.readers or index in self.writers:
            raise ValueError("MSR %#x is claimed already" % index)
        if reader:
            self.readers[index] = reader
        if writer:
            self.writers[index] = writer

    def tsc_jumps(self, deadline, follow):
        """follow() is called when the guest's TSC has jumped and the two words at address `deadline` are not 0."""
        self._jump[1] = deadline
        self._tsc_jumped = follow

    def store(self, index, initial=0, writer=_PLAIN):
        """An MSR whose value lies in memory, so that RDMSR costs little. writer as for add(), which put()s
        what shall be read then; without one any value is kept."""
        at = 2 * len(self._at)
        if at == 2 * _STORED:
            raise ValueError("more than %d stored MSRs" % _STORED)
        self._at[index] = at
        self._initial[index] = initial
        self.put(index, initial)
        self.add(index, self._getter, self._putter if writer is _PLAIN else writer)

    def get(self, index):
        """The value of a stored MSR."""
        at = self._at[index]
        return self._words[at] | self._words[at + 1] << 32

    def put(self, index, value):
        """Set the value of a stored MSR."""
        at = self._at[index]
        self._words[at] = value & 0xFFFFFFFF
        self._words[at + 1] = value >> 32 & 0xFFFFFFFF

    def _valid_writer(self, valid):
        """A writer that keeps what valid(index, value) is true for; the rest is #GP."""

        def write(index, value):
            if not valid(index, value):
                return False
            self.put(index, value)

        return write

    def reset(self):
        for index, value in self._initial.items():
            self.put(index, value)

    def read(self, index):
        """Return the guest's value. KeyError for an MSR that it does not have."""
        if index >> 6 == _X2APIC_FIRST >> 6:
            low, high, _ = self.x2apic
            value = low(index)
            return False if value < 0 else high(index) << 32 | value
        return self.readers[index](index)

    def write(self, index, value):
        """Write as the guest would; False where that is #GP. KeyError as for read."""
        if index >> 6 == _X2APIC_FIRST >> 6:
            return self.x2apic[2](index, value & 0xFFFFFFFF, value >> 32)
        return self.writers[index](index, value) is not False

    # -- handlers

    def install(self, exits):
        """Stored MSRs are read, and TSC_ADJUST is written, by handlers of their own."""
        exits.add(reasons.RDMSR, self.read_exit)
        exits.add(reasons.WRMSR, self.write_exit)
        exits.keyed(reasons.RDMSR, 4 * RCX, 0xFFFFFFFF)
        exits.keyed(reasons.WRMSR, 4 * RCX, 0xFFFFFFFF, _WRITTEN_BITS)
        base = uctypes.addressof(self._words)
        pairs = []
        for index, at in self._at.items():
            pairs.extend((index, base + 4 * at))
        exits.key_many(reasons.RDMSR, _read_words, pairs)
        self._jump[0] = base + 4 * self._at[IA32_TSC_ADJUST]
        exits.key(reasons.WRMSR, IA32_TSC_ADJUST, _write_tsc_adjust, uctypes.addressof(self._jump))

    @micropython.viper
    def read_exit(self, vcpu) -> int:
        """RDMSR: EDX:EAX from the MSR in ECX, or #GP(0)."""
        f = ptr32(vcpu)
        index = int(f[RCX])
        if index >> 6 == _X2APIC_FIRST >> 6:
            pair = self.x2apic
            low = int(pair[0](index))
            if low < 0:
                return int(events.general_protection(vcpu))
            high = 0
            if index == _X2APIC_ICR:  # the only one of 64 bits
                high = int(pair[1](index))
        else:
            reader = self.readers.get(index)
            if not reader:
                return int(self._refuse(vcpu, index, False))
            low = int(reader(index))
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
            done = bool(pair[2](index, int(f[RAX]), int(f[RDX])))
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
        return writer(index, (vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF) is not False

    def _refuse(self, vcpu, index, write):
        self._count(index, write)
        return events.general_protection(vcpu)

    def _count(self, index, write):
        tally.count(self.unclaimed, (index, write))

    # -- what they do

    def _ignore(self, index, value):
        pass

    def _variable_range(self, index, value):
        """IA32_MTRR_PHYSBASEn, and PHYSMASKn at the odd numbers."""
        beyond = value >> (self._vcpu.vm.cpuid.leaf(0x80000008, 0)[0] & 0xFF)
        if index & 1:
            return not beyond and not value & 0x7FF
        return not beyond and not value & 0xF00 and value & 0xFF in _MTRR_TYPES

    def _read_vmcs(self, index):
        return self._vcpu.read(_IN_VMCS[index])

    def _write_vmcs(self, index, value):
        if not _valid_for_cpu(index, value):
            return False
        if index == IA32_EFER:
            return self._write_efer(value)
        self._vcpu.write(_IN_VMCS[index], value)
        return True

    def _write_efer(self, value):
        vcpu = self._vcpu
        old = vcpu.efer
        if value & ~_EFER_ALLOWED or ((value ^ old) & EFER_LME and vcpu.cr0 & CR0_PG):
            return False
        vcpu.efer = value & ~EFER_LMA | old & EFER_LMA
        return True

    def _write_live(self, index, value):
        if not _valid_for_cpu(index, value):
            return False
        self._vcpu.msr(index, value)
        return True

    def _write_tsc(self, index, value):
        """The guest's TSC jumps, and TSC_ADJUST with it; the time of its devices does not."""
        clock = self._clock
        delta = value - clock.now() - clock.skew
        clock.skew += delta
        self.put(IA32_TSC_ADJUST, self.get(IA32_TSC_ADJUST) + delta)
        self._tsc_jumped()

    def _write_tsc_adjust(self, index, value):
        self._clock.skew += value - self.get(index)
        self.put(index, value)
        self._tsc_jumped()

    def _write_debugctl(self, index, value):
        if value & ~_DEBUGCTL_ALLOWED:
            return False
        self._vcpu.write(v.GUEST_IA32_DEBUGCTL, value)
        return True

    def _write_xss(self, index, value):
        if value & ~self._xss_allowed:
            return False
        self._vcpu.msr(index, value)
        return True


@micropython.viper
def _read_words(vcpu) -> int:
    """Handler of RDMSR of a stored MSR: its two words are at frame.DATUM."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    f[RAX] = w[0]
    f[RDX] = w[1]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1


@micropython.viper
def _write_tsc_adjust(vcpu) -> int:
    """Handler of WRMSR of IA32_TSC_ADJUST: the guest's TSC moves by the difference."""
    f = ptr32(vcpu)
    jump = ptr32(f[DATUM])
    w = ptr32(jump[0])
    low = int(f[RAX])
    high = int(f[RDX])
    offset = int(f[TSC_OFFSET]) | int(f[TSC_OFFSET + 1]) << 32
    offset += (high << 32 | low) - (int(w[1]) << 32 | int(w[0]))
    w[0] = low
    w[1] = high
    f[TSC_OFFSET] = offset
    f[TSC_OFFSET + 1] = offset >> 32
    f[DIRTY] |= DIRTY_TSC_OFFSET
    deadline = ptr32(jump[1])
    if deadline[0] or deadline[1]:
        vcpu.vm.lapic.timer.follow_tsc()
    return 1
