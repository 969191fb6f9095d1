"""CPUID: what the guest is told that it has.

Default-deny: leaves and feature bits not named here read 0. What is named shows as far as
the host has it. VMX, SMX, performance counters, thermal and power features, SGX, processor
trace are hidden; the hypervisor bit and leaves 0x40000000-1 say who is there. Source: SDM
Vol. 2A, "CPUID - CPU Identification".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm import tally, verdict
from vmm.vtx import reasons
from vmm.vtx.frame import DATUM, RAX, RBX, RCX, RDX
from vmm.vtx.vmcs import GUEST_CR4
from vmm.vtx.x86 import CR4_OSXSAVE, CR4_PKE

HYPERVISOR_LEAF = const(0x40000000)
SIGNATURE = b"PcanelPy    "

# Frame words (vmm/vtx/frame.py): constants here, since the handler of the commonest exit reads them.
_KNOWN = const(64)  # answers kept
_SUBLEAVES_KEPT = const(256)  # of a leaf, at most: the rest is made anew each time
_LAST = const(0x1F)  # the highest basic leaf that is shown
_SUBLEAVES = (4, 7, 0xB, 0xD)

_F1_ECX = const(
    1 << 0 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22
    | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 29 | 1 << 30
)  # fmt: skip
_F1_EDX = const(
    1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 11 | 1 << 12
    | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 19 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26 | 1 << 27
)  # fmt: skip
_X2APIC = const(1 << 21)
_APIC = const(1 << 9)
_TSC_DEADLINE = const(1 << 24)
_OSXSAVE = const(1 << 27)
_XSAVE = const(1 << 26)
_PCID = const(1 << 17)
_HYPERVISOR = const(1 << 31)

# Leaf 7: FSGSBASE, TSC_ADJUST, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, AVX-512 F/DQ/IFMA/CD/BW/VL,
# RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA
_F7_EBX = const(
    1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19
    | 1 << 20 | 1 << 21 | 1 << 23 | 1 << 24 | 1 << 28 | 1 << 29 | 1 << 30 | 1 << 31
)  # fmt: skip
# AVX512_VBMI, UMIP, PKU, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID
_F7_ECX = const(1 << 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | 1 << 22)
# FSRM; MD_CLEAR, IBRS and IBPB, STIBP, L1D_FLUSH, ARCH_CAPABILITIES, SSBD (vmm/handlers/spec_msrs.py)
_F7_EDX = const(1 << 4 | 1 << 10 | 1 << 26 | 1 << 27 | 1 << 28 | 1 << 29 | 1 << 31)
_INVPCID = const(1 << 10)
_RDPID = const(1 << 22)
_OSPKE = const(1 << 4)
_PKU = const(1 << 3)

_XCR0 = const(0x2E7)  # x87, SSE, AVX, AVX-512, PKRU
_FD1_EAX = const(0xF)  # XSAVEOPT, XSAVEC, XGETBV with ECX=1, XSAVES

_E1_ECX = const(1 << 0 | 1 << 5 | 1 << 8)  # LAHF, LZCNT, PREFETCHW
_E1_EDX = const(1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29)  # SYSCALL, NX, 1 GiB pages, RDTSCP, LM
_RDTSCP = const(1 << 27)
_LINEAR_BITS = const(48)  # no LA57
_SYSCALL = const(1 << 11)

# CR4: bit -> (leaf, register, feature bit) that brings it; bits 0-10 are there on every CPU with VT-x.
_CR4_BASE = const(0x7FF)
_CR4 = (
    (11, 7, 2, 2),  # UMIP
    (16, 7, 1, 0),  # FSGSBASE
    (17, 1, 2, 17),  # PCIDE
    (18, 1, 2, 26),  # OSXSAVE
    (20, 7, 1, 7),  # SMEP
    (21, 7, 1, 20),  # SMAP
    (22, 7, 2, 3),  # PKE
)


def _words(text):
    """Four characters a register."""
    return tuple([int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4)])


class Cpuid:
    """One guest's answers. windows: its sides of shared memory.

    host: cpu.cpuid. caps: vmm.vtx.caps.Caps. tsc_hz: measured, in Hz; told in leaf 15H where the
    host has that leaf. compacts: whether XSAVEC and XSAVES can be trusted.
    """

    def __init__(self, host, caps, tsc_hz, xcr0, compacts):
        self._host = host
        self._tsc_hz = tsc_hz
        self._proc2 = caps.used["proc2"]
        self.max_leaf = min(host(0)[0], _LAST)
        self.max_extended = min(host(0x80000000)[0], 0x80000008)
        self.has_rdtscp = bool(self._proc2.ENABLE_RDTSCP and host(0x80000001)[3] & _RDTSCP)
        self._compacts = compacts
        self.has_xsaves = bool(compacts and self._proc2.ENABLE_XSAVES and self._has(0xD) and host(0xD, 1)[0] & 8)
        self.xcr0 = xcr0 & _XCR0 if host(1)[2] & _XSAVE else 0
        self.unknown = {}
        self.windows = ()
        self._known = {}
        self._apic = _APIC
        self._leaves = [leaf for leaf in range(self.max_leaf + 1) if leaf not in _SUBLEAVES]
        self._leaves += list(range(0x80000000, self.max_extended + 1))
        self._leaves += [HYPERVISOR_LEAF, HYPERVISOR_LEAF + 1]
        self._direct = array("I", [word for leaf in self._leaves for word in self.leaf(leaf, 0)])
        self.width = self.leaf(0x80000008, 0)[0] & 0xFF  # bits of a physical address

    def show_apic(self, enabled):
        """IA32_APIC_BASE.EN may have changed: the feature bit follows it.

        Source: SDM Vol. 3A, "Enabling or Disabling the Local APIC".
        """
        self._apic = _APIC if enabled else 0
        self._known.clear()
        self._direct[4 * self._leaves.index(1) + 3] = self.leaf(1, 0)[3]

    def _has(self, leaf):
        return leaf <= self._host(0)[0]

    def features(self, leaf, register):
        """One register (0-3: EAX-EDX) of leaf 1 or 7, without the bits that follow CR4."""
        return self.leaf(leaf, 0)[register]

    def cr4_allowed(self):
        """Bits of CR4 that the guest may set."""
        allowed = _CR4_BASE
        for bit, leaf, register, feature in _CR4:
            if leaf <= self.max_leaf and self.features(leaf, register) >> feature & 1:
                allowed |= 1 << bit
        return allowed

    def leaf(self, leaf, subleaf):
        """Return (EAX, EBX, ECX, EDX)."""
        if leaf & 0xFFFF0000 == HYPERVISOR_LEAF:
            return self._hypervisor(leaf, subleaf)
        if leaf >= 0x80000000:
            return self._extended(leaf)
        if leaf > self.max_leaf:
            return 0, 0, 0, 0
        a, b, c, d = self._host(leaf, subleaf)
        if leaf == 0:
            return self.max_leaf, b, c, d
        if leaf == 1:
            c = c & _F1_ECX | _HYPERVISOR | _TSC_DEADLINE | _X2APIC
            if not self.xcr0:
                c &= ~(1 << 12 | 1 << 28 | 1 << 29 | _XSAVE)
            return a, b & 0x0000FF00 | 1 << 16, c, d & _F1_EDX & ~_APIC | self._apic
        if leaf == 2:
            return a, b, c, d
        if leaf == 4:
            return a & 0x00003FFF, b, c, d  # one core, one thread
        if leaf == 6:
            return 1 << 2, 0, 0, 0  # ARAT: the APIC timer never stops
        if leaf == 7:
            return self._leaf_7(subleaf, b, c, d)
        if leaf == 0xB:
            return self._topology(subleaf)
        if leaf == 0xD:
            return self._xsave(subleaf, a, b, c, d)
        if leaf == 0x15:
            return 1, 1, self._tsc_hz & 0xFFFFFFFF, 0  # "crystal": the TSC itself
        if leaf == 0x16:
            mhz = self._tsc_hz // 1000000 & 0xFFFF
            return mhz, mhz, 0, 0
        return 0, 0, 0, 0

    def _leaf_7(self, subleaf, b, c, d):
        if subleaf:
            return 0, 0, 0, 0
        b, c = b & _F7_EBX | 2, c & _F7_ECX
        if not self._proc2.ENABLE_INVPCID:
            b &= ~_INVPCID
        if not self.has_rdtscp:
            c &= ~_RDPID
        if not self.xcr0 & 4:
            b &= ~(1 << 5)
            c &= ~(1 << 9 | 1 << 10)
        if self.xcr0 & 0xE0 != 0xE0:
            b &= ~(1 << 16 | 1 << 17 | 1 << 21 | 1 << 28 | 1 << 30 | 1 << 31)
            c &= ~(1 << 1 | 1 << 6 | 1 << 11 | 1 << 12 | 1 << 14)
        if not self.xcr0 & 0x200:
            c &= ~_PKU
        return 0, b, c, d & _F7_EDX

    @staticmethod
    def _topology(subleaf):
        if subleaf == 0:
            return 0, 1, 1 << 8 | 0, 0  # SMT level: one logical processor
        if subleaf == 1:
            return 0, 1, 2 << 8 | 1, 0  # core level
        return 0, 0, subleaf & 0xFF, 0

    def _xsave(self, subleaf, a, b, c, d):
        if not self.xcr0:
            return 0, 0, 0, 0
        if subleaf == 0:
            return self.xcr0, self.xsave_size(1), self.xsave_size(self.xcr0), 0
        if subleaf == 1:
            a &= _FD1_EAX
            if not self._compacts:
                a &= ~2
            if not self.has_xsaves:
                a &= ~8
            return a, self.xsave_size(self.xcr0, True) if a & 2 else 0, 0, 0
        if subleaf < 32 and self.xcr0 >> subleaf & 1:
            return a, b, c & ~1, 0
        return 0, 0, 0, 0

    def xsave_size(self, xcr0, compacted=False):
        """Bytes of an XSAVE area for these components."""
        size = 576
        for i in range(2, 32):
            if xcr0 >> i & 1:
                length, offset, flags, _ = self._host(0xD, i)
                if compacted:
                    size = (size + 63 & ~63 if flags & 2 else size) + length
                else:
                    size = max(size, offset + length)
        return size

    def _extended(self, leaf):
        if leaf > self.max_extended:
            return 0, 0, 0, 0
        a, b, c, d = self._host(leaf)
        if leaf == 0x80000000:
            return self.max_extended, 0, 0, 0
        if leaf == 0x80000001:
            d = d & _E1_EDX | _SYSCALL
            return a, 0, c & _E1_ECX, d if self.has_rdtscp else d & ~_RDTSCP
        if 0x80000002 <= leaf <= 0x80000004 or leaf == 0x80000006:
            return a, b, c, d
        if leaf == 0x80000007:
            return 0, 0, 0, 1 << 8  # invariant TSC
        if leaf == 0x80000008:
            linear = min(a >> 8 & 0xFF, _LINEAR_BITS)  # as wide as what leaf 7 shows
            return a & 0xFF | linear << 8, 0, 0, 0
        return 0, 0, 0, 0

    def _hypervisor(self, leaf, subleaf):
        """docs/hypercalls.md."""
        if leaf == HYPERVISOR_LEAF:
            return (HYPERVISOR_LEAF + 3,) + _words(SIGNATURE)
        if leaf == HYPERVISOR_LEAF + 1:
            return 0, 1, 0, 0  # the interface's version; EAX and EDX are KVM's features, which some take unasked
        if leaf in (HYPERVISOR_LEAF + 2, HYPERVISOR_LEAF + 3) and subleaf < len(self.windows):
            side = self.windows[subleaf]
            return side.describe() if leaf == HYPERVISOR_LEAF + 2 else _words(side.window.name.encode() + bytes(16))[:4]
        return 0, 0, 0, 0

    def install(self, exits):
        """Leaves that depend on nothing but the leaf, and leaf 1, have handlers of their own."""
        exits.add(reasons.CPUID, bind(_other, self.exit))
        exits.keyed(reasons.CPUID, 4 * RAX, 0xFFFFFFFF)
        base = uctypes.addressof(self._direct)
        for i, leaf in enumerate(self._leaves):
            exits.key(reasons.CPUID, leaf, _leaf_1 if leaf == 1 else _leaf, base + 16 * i)

    def exit(self, vcpu):
        """Handler of CPUID: any leaf."""
        leaf = vcpu.rax & 0xFFFFFFFF
        subleaf = vcpu.rcx & 0xFFFFFFFF
        if self.max_leaf < leaf < HYPERVISOR_LEAF or leaf > self.max_extended:
            tally.count(self.unknown, leaf)
            leaf, subleaf = self.max_leaf, subleaf  # as Intel CPUs answer: the highest basic leaf
        if subleaf < _SUBLEAVES_KEPT:
            key = leaf * _SUBLEAVES_KEPT + subleaf
            if key not in self._known:
                if len(self._known) == _KNOWN:
                    self._known.clear()
                self._known[key] = self.leaf(leaf, subleaf)
            a, b, c, d = self._known[key]
        else:
            a, b, c, d = self.leaf(leaf, subleaf)
        if leaf == 1 and vcpu.cr4 & CR4_OSXSAVE:
            c |= _OSXSAVE
        elif leaf == 7 and subleaf == 0 and vcpu.cr4 & CR4_PKE:
            c |= _OSPKE
        elif leaf == 0xD and subleaf == 0:
            b = self.xsave_size(vcpu.xcr0)
        elif leaf == 0xD and subleaf == 1 and a & 2:
            b = self.xsave_size(vcpu.xcr0, True)
        vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = a, b, c, d
        return verdict.ADVANCE


# Linux looks for hypervisors at 256 leaves, each time that it asks for one.
@micropython.viper
def _other(exit_, vcpu) -> int:
    """Handler of all other leaves: zero where other hypervisors begin, the rest is exit's."""
    f = ptr32(vcpu)
    if f[RAX] >> 16 != 0x4000 or f[RAX] & 0xFF00 == 0:
        return int(exit_(vcpu))
    f[RAX] = 0
    f[RBX] = 0
    f[RCX] = 0
    f[RDX] = 0
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return 1


# Two functions rather than one that calls the other: a call costs half of what the exit may.
@micropython.viper
def _leaf(vcpu) -> int:
    """Handler of a leaf whose four words are at frame.DATUM."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    f[RAX] = w[0]
    f[RBX] = w[1]
    f[RCX] = w[2]
    f[RDX] = w[3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    return 1


@micropython.viper
def _leaf_1(vcpu) -> int:
    """The same for leaf 1, where OSXSAVE follows CR4."""
    f = ptr32(vcpu)
    w = ptr32(f[DATUM])
    f[RAX] = w[0]
    f[RBX] = w[1]
    f[RCX] = w[2]
    f[RDX] = w[3]
    f[RAX + 1] = 0
    f[RBX + 1] = 0
    f[RCX + 1] = 0
    f[RDX + 1] = 0
    if int(vcpu.read(GUEST_CR4)) & CR4_OSXSAVE:
        f[RCX] |= _OSXSAVE
    return 1
