"""CPUID: which features of the CPU a guest sees.

Default-deny: leaves and feature bits not named here read 0; those named are shown if the host has them. VMX, SMX,
performance counters, thermal and power features, SGX and processor trace are hidden. The hypervisor bit and leaves
0x40000000-3 identify the monitor. Source: SDM Vol. 2A, "CPUID - CPU Identification".
"""

from array import array

import uctypes
from micropython import const
from vmx import bind, vmread

from vmm import verdict
from vmm.handlers import cpuid_exits
from vmm.handlers.cpuid_exits import COUNTED, HYPERVISOR_LEAF
from vmm.vtx import cpuid_bits as x
from vmm.vtx import reasons
from vmm.vtx.frame import RAX
from vmm.vtx.x86 import (
    CR4_FSGSBASE,
    CR4_OSXSAVE,
    CR4_PCIDE,
    CR4_PKE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_UMIP,
)

SIGNATURE = b"PcanelPy    "

_MOST = const(16)  # subleaves of leaf 4 that are stored; later ones are computed at each exit
_LAST = const(0x1F)  # the highest basic leaf that is shown
_SUBLEAVES = (4, 7, 0xB, 0xD, 0x1F)
_NO_XCR0 = const(0xFFFFFFFF)

_LEAF_1_ECX = const(
    x.LEAF_1_ECX_SSE3 | x.LEAF_1_ECX_PCLMULQDQ | x.LEAF_1_ECX_SSSE3 | x.LEAF_1_ECX_FMA | x.LEAF_1_ECX_CMPXCHG16B
    | x.LEAF_1_ECX_PCID | x.LEAF_1_ECX_SSE4_1 | x.LEAF_1_ECX_SSE4_2 | x.LEAF_1_ECX_X2APIC | x.LEAF_1_ECX_MOVBE
    | x.LEAF_1_ECX_POPCNT | x.LEAF_1_ECX_TSC_DEADLINE | x.LEAF_1_ECX_AESNI | x.LEAF_1_ECX_XSAVE | x.LEAF_1_ECX_AVX
    | x.LEAF_1_ECX_F16C | x.LEAF_1_ECX_RDRAND
)  # fmt: skip
_LEAF_1_ECX_OURS = const(x.LEAF_1_ECX_HYPERVISOR | x.LEAF_1_ECX_TSC_DEADLINE | x.LEAF_1_ECX_X2APIC)
_LEAF_1_ECX_XSAVED = const(x.LEAF_1_ECX_FMA | x.LEAF_1_ECX_AVX | x.LEAF_1_ECX_F16C | x.LEAF_1_ECX_XSAVE)
_LEAF_1_EDX = const(
    x.LEAF_1_EDX_FPU
    | x.LEAF_1_EDX_VME
    | x.LEAF_1_EDX_DE
    | x.LEAF_1_EDX_PSE
    | x.LEAF_1_EDX_TSC
    | x.LEAF_1_EDX_MSR
    | x.LEAF_1_EDX_PAE
    | x.LEAF_1_EDX_MCE
    | x.LEAF_1_EDX_CX8
    | x.LEAF_1_EDX_SEP
    | x.LEAF_1_EDX_MTRR
    | x.LEAF_1_EDX_PGE
    | x.LEAF_1_EDX_MCA
    | x.LEAF_1_EDX_CMOV
    | x.LEAF_1_EDX_PAT
    | x.LEAF_1_EDX_PSE_36
    | x.LEAF_1_EDX_CLFSH
    | x.LEAF_1_EDX_MMX
    | x.LEAF_1_EDX_FXSR
    | x.LEAF_1_EDX_SSE
    | x.LEAF_1_EDX_SSE2
    | x.LEAF_1_EDX_SS
)  # fmt: skip; APIC follows IA32_APIC_BASE
_LEAF_7_EBX_AVX512 = const(
    x.LEAF_7_EBX_AVX512F | x.LEAF_7_EBX_AVX512DQ | x.LEAF_7_EBX_AVX512_IFMA | x.LEAF_7_EBX_AVX512CD
    | x.LEAF_7_EBX_AVX512BW | x.LEAF_7_EBX_AVX512VL
)  # fmt: skip
_LEAF_7_EBX = const(
    x.LEAF_7_EBX_FSGSBASE | x.LEAF_7_EBX_TSC_ADJUST | x.LEAF_7_EBX_BMI1 | x.LEAF_7_EBX_AVX2 | x.LEAF_7_EBX_SMEP
    | x.LEAF_7_EBX_BMI2 | x.LEAF_7_EBX_ERMS | x.LEAF_7_EBX_INVPCID | x.LEAF_7_EBX_RDSEED | x.LEAF_7_EBX_ADX
    | x.LEAF_7_EBX_SMAP | x.LEAF_7_EBX_CLFLUSHOPT | x.LEAF_7_EBX_CLWB | x.LEAF_7_EBX_SHA | _LEAF_7_EBX_AVX512
)  # fmt: skip
_LEAF_7_ECX_AVX = const(x.LEAF_7_ECX_VAES | x.LEAF_7_ECX_VPCLMULQDQ)
_LEAF_7_ECX_AVX512 = const(
    x.LEAF_7_ECX_AVX512_VBMI | x.LEAF_7_ECX_AVX512_VBMI2 | x.LEAF_7_ECX_AVX512_VNNI | x.LEAF_7_ECX_AVX512_BITALG
    | x.LEAF_7_ECX_AVX512_VPOPCNTDQ
)  # fmt: skip
_LEAF_7_ECX = const(
    x.LEAF_7_ECX_UMIP | x.LEAF_7_ECX_PKU | x.LEAF_7_ECX_GFNI | x.LEAF_7_ECX_RDPID | _LEAF_7_ECX_AVX | _LEAF_7_ECX_AVX512
)
_LEAF_7_EDX = const(  # all but FSRM: vmm/handlers/spec_msrs.py
    x.LEAF_7_EDX_FSRM | x.LEAF_7_EDX_MD_CLEAR | x.LEAF_7_EDX_IBRS_IBPB | x.LEAF_7_EDX_STIBP | x.LEAF_7_EDX_L1D_FLUSH
    | x.LEAF_7_EDX_ARCH_CAPABILITIES | x.LEAF_7_EDX_SSBD
)  # fmt: skip
_LEAF_D_1_EAX = const(x.LEAF_D_1_EAX_XSAVEOPT | x.LEAF_D_1_EAX_XSAVEC | x.LEAF_D_1_EAX_XGETBV_1 | x.LEAF_D_1_EAX_XSAVES)
_XCR0 = const(x.XCR0_X87 | x.XCR0_SSE | x.XCR0_AVX | x.XCR0_AVX512 | x.XCR0_PKRU)
_EXTENDED_1_ECX = const(x.EXTENDED_1_ECX_LAHF | x.EXTENDED_1_ECX_LZCNT | x.EXTENDED_1_ECX_PREFETCHW)
_EXTENDED_1_EDX = const(
    x.EXTENDED_1_EDX_SYSCALL | x.EXTENDED_1_EDX_NX | x.EXTENDED_1_EDX_PAGE_1G | x.EXTENDED_1_EDX_RDTSCP
    | x.EXTENDED_1_EDX_LM
)  # fmt: skip
_LINEAR_BITS = const(48)  # no LA57

# CR4: bit -> (leaf, register, feature bit) that it depends on; every CPU with VT-x has bits 0-10.
_CR4_BASE = const(0x7FF)
_EBX, _ECX = 1, 2
_CR4 = (
    (CR4_UMIP, 7, _ECX, x.LEAF_7_ECX_UMIP),
    (CR4_FSGSBASE, 7, _EBX, x.LEAF_7_EBX_FSGSBASE),
    (CR4_PCIDE, 1, _ECX, x.LEAF_1_ECX_PCID),
    (CR4_OSXSAVE, 1, _ECX, x.LEAF_1_ECX_XSAVE),
    (CR4_SMEP, 7, _EBX, x.LEAF_7_EBX_SMEP),
    (CR4_SMAP, 7, _EBX, x.LEAF_7_EBX_SMAP),
    (CR4_PKE, 7, _ECX, x.LEAF_7_ECX_PKU),
)


def _words(text):
    """Return a text as register values, of four characters each."""
    return tuple([int.from_bytes(text[i : i + 4], "little") for i in range(0, len(text), 4)])


class Cpuid:
    """The CPUID of one guest. windows: its sides of shared memory.

    host: cpu.cpuid. caps: vmm.vtx.caps.Caps. tsc_hz: TSC frequency as measured, in Hz; shown in leaf 15H if the host
    has that leaf. compacts: whether XSAVEC and XSAVES work. like: the Cpuid of another guest with the same arguments,
    whose answers are copied. cpus: number of vCPUs, shown as single-threaded cores of one package.
    """

    def __init__(self, host, caps, tsc_hz, xcr0, compacts, like=None, cpus=1):
        self.cpus = cpus
        self._core_bits = 0  # width of the core number in the APIC ID
        while 1 << self._core_bits < cpus:
            self._core_bits += 1
        self._host = host
        self._tsc_hz = tsc_hz
        self._proc2 = caps.used["proc2"]
        self.max_leaf = min(host(0)[0], _LAST)
        self.max_extended = min(host(0x80000000)[0], 0x80000008)
        self.has_rdtscp = bool(self._proc2.ENABLE_RDTSCP and host(0x80000001)[3] & x.EXTENDED_1_EDX_RDTSCP)
        self._compacts = compacts
        self.has_xsaves = bool(
            compacts and self._proc2.ENABLE_XSAVES and self._has(0xD) and host(0xD, 1)[0] & x.LEAF_D_1_EAX_XSAVES
        )
        self.xcr0 = xcr0 & _XCR0 if host(1)[2] & x.LEAF_1_ECX_XSAVE else 0
        self.unknown = {}
        self.windows = ()
        if like:
            self._at = like._at
            self._answers = array("I", bytes(like._answers))  # array(array) would copy word by word
            if 0xD in self._at:
                self._answers[self._at[0xD] + 1] = _NO_XCR0
        else:
            self._at = {}  # leaf: where its words begin
            self._answers = array("I", self._all())
        self.width = self.leaf(0x80000008, 0)[0] & 0xFF  # bits of a physical address

    def _all(self):
        """The words of all leaves: EAX-EDX; for leaves with subleaves a count and an XCR0, then EAX-EDX of each."""
        words = []
        leaves = list(range(self.max_leaf + 1)) + list(range(0x80000000, self.max_extended + 1))
        for leaf in leaves + [HYPERVISOR_LEAF, HYPERVISOR_LEAF + 1]:
            self._at[leaf] = len(words)
            if leaf in _SUBLEAVES:
                count = self._count(leaf)
                words.extend((count, _NO_XCR0))
                for subleaf in range(count):
                    words.extend(self.leaf(leaf, subleaf))
            else:
                words.extend(self.leaf(leaf, 0))
        return words

    def _count(self, leaf):
        """The number of subleaves of a leaf that are stored."""
        if leaf == 4:
            count = 0
            while count < _MOST - 1 and self._host(4, count)[0] & 0x1F:
                count += 1
            return count + 1  # a null entry ends the list
        return {7: 1, 0xB: 3, 0xD: 10, 0x1F: 3}[leaf]

    def _has(self, leaf):
        return leaf <= self._host(0)[0]

    def features(self, leaf, register):
        """Return a register (0-3: EAX-EDX) of leaf 1 or 7, without the bits that reflect CR4."""
        return self.leaf(leaf, 0)[register]

    def cr4_allowed(self):
        """Return the bits of CR4 that the guest may set."""
        allowed = _CR4_BASE
        for bit, leaf, register, feature in _CR4:
            if leaf <= self.max_leaf and self.features(leaf, register) & feature:
                allowed |= bit
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
            c = c & _LEAF_1_ECX | _LEAF_1_ECX_OURS
            if not self.xcr0:
                c &= ~_LEAF_1_ECX_XSAVED
            b = b & x.LEAF_1_EBX_CLFLUSH_SIZE | 1 << self._core_bits + x.LEAF_1_EBX_LOGICAL_PROCESSORS
            d = d & _LEAF_1_EDX | x.LEAF_1_EDX_APIC
            return a, b, c, d | x.LEAF_1_EDX_HTT if self.cpus > 1 else d
        if leaf == 2:
            return a, b, c, d
        if leaf == 4:
            return self._caches(a), b, c, d
        if leaf == 6:
            return x.LEAF_6_EAX_ARAT, 0, 0, 0  # the APIC timer never stops
        if leaf == 7:
            return self._leaf_7(subleaf, b, c, d)
        if leaf == 0xB or leaf == 0x1F:
            return self._topology(subleaf)
        if leaf == 0xD:
            return self._xsave(subleaf, a, b, c)
        if leaf == 0x15:
            return 1, 1, self._tsc_hz & 0xFFFFFFFF, 0  # "crystal": the TSC itself
        if leaf == 0x16:
            mhz = self._tsc_hz // 1000000 & 0xFFFF
            return mhz, mhz, 0, 0
        return 0, 0, 0, 0

    def _leaf_7(self, subleaf, b, c, d):
        if subleaf:
            return 0, 0, 0, 0
        b, c = b & _LEAF_7_EBX | x.LEAF_7_EBX_TSC_ADJUST, c & _LEAF_7_ECX
        if not self._proc2.ENABLE_INVPCID:
            b &= ~x.LEAF_7_EBX_INVPCID
        if not self.has_rdtscp:
            c &= ~x.LEAF_7_ECX_RDPID
        if not self.xcr0 & x.XCR0_AVX:
            b &= ~x.LEAF_7_EBX_AVX2
            c &= ~_LEAF_7_ECX_AVX
        if self.xcr0 & x.XCR0_AVX512 != x.XCR0_AVX512:
            b &= ~_LEAF_7_EBX_AVX512
            c &= ~_LEAF_7_ECX_AVX512
        if not self.xcr0 & x.XCR0_PKRU:
            c &= ~x.LEAF_7_ECX_PKU
        return 0, b, c, d & _LEAF_7_EDX

    def _topology(self, subleaf):
        """Leaves 0BH and 1FH; EDX, the x2APIC ID, is 0."""
        if subleaf == 0:
            return 0, 1, 1 << 8 | 0, 0  # SMT level: one logical processor
        if subleaf == 1:
            return self._core_bits, self.cpus, 2 << 8 | 1, 0  # core level
        return 0, 0, subleaf & 0xFF, 0

    def _caches(self, a):
        """EAX of leaf 4: the package shares the third-level cache; the others are private to a core."""
        if not a & 0x1F:
            return a & x.LEAF_4_EAX_CACHE
        cores = (1 << self._core_bits) - 1
        shared = cores if a >> 5 & 7 > 2 else 0
        return a & x.LEAF_4_EAX_CACHE | shared << x.LEAF_4_EAX_SHARING | cores << x.LEAF_4_EAX_CORES

    def _xsave(self, subleaf, a, b, c):
        if not self.xcr0:
            return 0, 0, 0, 0
        if subleaf == 0:
            return self.xcr0, self.xsave_size(1), self.xsave_size(self.xcr0), 0
        if subleaf == 1:
            a &= _LEAF_D_1_EAX
            if not self._compacts:
                a &= ~x.LEAF_D_1_EAX_XSAVEC
            if not self.has_xsaves:
                a &= ~x.LEAF_D_1_EAX_XSAVES
            return a, self.xsave_size(self.xcr0, True) if a & x.LEAF_D_1_EAX_XSAVEC else 0, 0, 0
        if subleaf < 32 and self.xcr0 >> subleaf & 1:
            return a, b, c & ~x.LEAF_D_ECX_SUPERVISOR, 0
        return 0, 0, 0, 0

    def xsave_size(self, xcr0, compacted=False):
        """Return the bytes of an XSAVE area for these components."""
        size = 576
        for i in range(2, 32):
            if xcr0 >> i & 1:
                length, offset, flags, _ = self._host(0xD, i)
                if compacted:
                    size = (size + 63 & ~63 if flags & x.LEAF_D_ECX_ALIGNED else size) + length
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
            d = d & _EXTENDED_1_EDX | x.EXTENDED_1_EDX_SYSCALL
            return a, 0, c & _EXTENDED_1_ECX, d if self.has_rdtscp else d & ~x.EXTENDED_1_EDX_RDTSCP
        if 0x80000002 <= leaf <= 0x80000004 or leaf == 0x80000006:
            return a, b, c, d
        if leaf == 0x80000007:
            return 0, 0, 0, x.EXTENDED_7_EDX_INVARIANT_TSC
        if leaf == 0x80000008:
            linear = min(a >> 8 & 0xFF, _LINEAR_BITS)  # 48: LA57 is hidden
            return a & 0xFF | linear << 8, 0, 0, 0
        return 0, 0, 0, 0

    def _hypervisor(self, leaf, subleaf):
        """Leaves 40000000H to 40000003H: docs/hypercalls.md."""
        if leaf == HYPERVISOR_LEAF:
            return (HYPERVISOR_LEAF + 3,) + _words(SIGNATURE)
        if leaf == HYPERVISOR_LEAF + 1:
            return 0, 1, 0, 0  # interface version; 0 where some guests read KVM features
        if leaf in (HYPERVISOR_LEAF + 2, HYPERVISOR_LEAF + 3) and subleaf < len(self.windows):
            side = self.windows[subleaf]
            return side.describe() if leaf == HYPERVISOR_LEAF + 2 else _words(side.window.name.encode() + bytes(16))[:4]
        return 0, 0, 0, 0

    def install(self, exits):
        """Set a handler for each leaf; frame.DATUM is the address of the leaf's words."""
        base = uctypes.addressof(self._answers)
        exit_ = self.exit
        handlers = {  # vmread, looked up at each exit, costs 100 or 200, as its place among names may be
            1: bind(cpuid_exits.leaf_1, vmread),
            4: bind(cpuid_exits.subleaf, exit_),
            7: bind(cpuid_exits.leaf_7, exit_, vmread),
            0xD: bind(cpuid_exits.leaf_d, exit_),
        }
        handlers[0xB] = handlers[0x1F] = bind(cpuid_exits.topology, exit_)
        highest = handlers.get(self.max_leaf, cpuid_exits.leaf)
        self._limits = array("I", [self.max_leaf, self.max_extended, base + 4 * self._at[self.max_leaf]])
        exits.add(
            reasons.CPUID,
            bind(cpuid_exits.other, self.unknown, self.unknown.get, uctypes.addressof(self._limits), highest),
        )
        exits.keyed(reasons.CPUID, 4 * RAX, 0xFFFFFFFF)
        pairs = []
        for leaf, at in self._at.items():
            if leaf in handlers:
                exits.key(reasons.CPUID, leaf, handlers[leaf], base + 4 * at)
            else:
                pairs.extend((leaf, base + 4 * at))
        exits.key_many(reasons.CPUID, cpuid_exits.leaf, pairs)

    def exit(self, vcpu):
        """Handler of CPUID: any leaf."""
        leaf = vcpu.rax & 0xFFFFFFFF
        subleaf = vcpu.rcx & 0xFFFFFFFF
        if not (
            leaf <= self.max_leaf or 0x80000000 <= leaf <= self.max_extended or leaf & 0xFFFF0000 == HYPERVISOR_LEAF
        ):
            leaf = self.max_leaf  # as on Intel CPUs; cpuid_exits.other has counted the leaf
        a, b, c, d = self.leaf(leaf, subleaf)
        if leaf == 1:
            b |= vcpu.lapic.apic_id << x.LEAF_1_EBX_APIC_ID
            if vcpu.cr4 & CR4_OSXSAVE:
                c |= x.LEAF_1_ECX_OSXSAVE
            if not vcpu.lapic.enabled:
                d &= ~x.LEAF_1_EDX_APIC
        elif leaf == 0xB or leaf == 0x1F:
            d = vcpu.lapic.apic_id
        elif leaf == 7 and subleaf == 0 and vcpu.cr4 & CR4_PKE:
            c |= x.LEAF_7_ECX_OSPKE
        elif leaf == 0xD and subleaf < 2:
            b = self._resize(vcpu.xcr0, subleaf)
        vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = a, b, c, d
        return verdict.ADVANCE

    def _resize(self, xcr0, subleaf):
        """Store the sizes of leaf 0DH for an XCR0; returns EBX of subleaf 0 or 1."""
        at = self._at[0xD]
        words = self._answers
        if self.xcr0:
            words[at + 1] = xcr0
            words[at + COUNTED + 1] = self.xsave_size(xcr0)
            if words[at + COUNTED + 4] & x.LEAF_D_1_EAX_XSAVEC:
                words[at + COUNTED + 5] = self.xsave_size(xcr0, True)
        return words[at + COUNTED + 1 + 4 * subleaf]
