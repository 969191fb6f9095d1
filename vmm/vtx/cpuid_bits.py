"""Feature bits of CPUID, by the SDM's names (Vol. 2A, "CPUID - CPU Identification").

Constants, not register classes (vmm/vtx/reg.py): the build replaces them by numbers, whereas 120 fields of a class
would take 40 KB of the heap. A name consists of leaf, register and feature.
"""

from micropython import const

LEAF_1_ECX_SSE3 = const(1 << 0)
LEAF_1_ECX_PCLMULQDQ = const(1 << 1)
LEAF_1_ECX_VMX = const(1 << 5)
LEAF_1_ECX_SSSE3 = const(1 << 9)
LEAF_1_ECX_FMA = const(1 << 12)
LEAF_1_ECX_CMPXCHG16B = const(1 << 13)
LEAF_1_ECX_PCID = const(1 << 17)
LEAF_1_ECX_SSE4_1 = const(1 << 19)
LEAF_1_ECX_SSE4_2 = const(1 << 20)
LEAF_1_ECX_X2APIC = const(1 << 21)
LEAF_1_ECX_MOVBE = const(1 << 22)
LEAF_1_ECX_POPCNT = const(1 << 23)
LEAF_1_ECX_TSC_DEADLINE = const(1 << 24)
LEAF_1_ECX_AESNI = const(1 << 25)
LEAF_1_ECX_XSAVE = const(1 << 26)
LEAF_1_ECX_OSXSAVE = const(1 << 27)
LEAF_1_ECX_AVX = const(1 << 28)
LEAF_1_ECX_F16C = const(1 << 29)
LEAF_1_ECX_RDRAND = const(1 << 30)
LEAF_1_ECX_HYPERVISOR = const(1 << 31)

LEAF_1_EDX_FPU = const(1 << 0)
LEAF_1_EDX_VME = const(1 << 1)
LEAF_1_EDX_DE = const(1 << 2)
LEAF_1_EDX_PSE = const(1 << 3)
LEAF_1_EDX_TSC = const(1 << 4)
LEAF_1_EDX_MSR = const(1 << 5)
LEAF_1_EDX_PAE = const(1 << 6)
LEAF_1_EDX_MCE = const(1 << 7)
LEAF_1_EDX_CX8 = const(1 << 8)
LEAF_1_EDX_APIC = const(1 << 9)
LEAF_1_EDX_SEP = const(1 << 11)
LEAF_1_EDX_MTRR = const(1 << 12)
LEAF_1_EDX_PGE = const(1 << 13)
LEAF_1_EDX_MCA = const(1 << 14)
LEAF_1_EDX_CMOV = const(1 << 15)
LEAF_1_EDX_PAT = const(1 << 16)
LEAF_1_EDX_PSE_36 = const(1 << 17)
LEAF_1_EDX_CLFSH = const(1 << 19)
LEAF_1_EDX_MMX = const(1 << 23)
LEAF_1_EDX_FXSR = const(1 << 24)
LEAF_1_EDX_SSE = const(1 << 25)
LEAF_1_EDX_SSE2 = const(1 << 26)
LEAF_1_EDX_SS = const(1 << 27)
LEAF_1_EDX_HTT = const(1 << 28)

LEAF_1_EBX_CLFLUSH_SIZE = const(0xFF00)
LEAF_1_EBX_LOGICAL_PROCESSORS = const(16)  # shift
LEAF_1_EBX_APIC_ID = const(24)  # shift

LEAF_4_EAX_CACHE = const(0x3FFF)  # all but the numbers of processors and cores
LEAF_4_EAX_SHARING = const(14)  # shift: APIC IDs of processors that share the cache, less 1
LEAF_4_EAX_CORES = const(26)  # shift: APIC IDs of cores in the package, less 1

LEAF_6_EAX_ARAT = const(1 << 2)

LEAF_7_EBX_FSGSBASE = const(1 << 0)
LEAF_7_EBX_TSC_ADJUST = const(1 << 1)
LEAF_7_EBX_BMI1 = const(1 << 3)
LEAF_7_EBX_AVX2 = const(1 << 5)
LEAF_7_EBX_SMEP = const(1 << 7)
LEAF_7_EBX_BMI2 = const(1 << 8)
LEAF_7_EBX_ERMS = const(1 << 9)
LEAF_7_EBX_INVPCID = const(1 << 10)
LEAF_7_EBX_RTM = const(1 << 11)
LEAF_7_EBX_AVX512F = const(1 << 16)
LEAF_7_EBX_AVX512DQ = const(1 << 17)
LEAF_7_EBX_RDSEED = const(1 << 18)
LEAF_7_EBX_ADX = const(1 << 19)
LEAF_7_EBX_SMAP = const(1 << 20)
LEAF_7_EBX_AVX512_IFMA = const(1 << 21)
LEAF_7_EBX_CLFLUSHOPT = const(1 << 23)
LEAF_7_EBX_CLWB = const(1 << 24)
LEAF_7_EBX_AVX512CD = const(1 << 28)
LEAF_7_EBX_SHA = const(1 << 29)
LEAF_7_EBX_AVX512BW = const(1 << 30)
LEAF_7_EBX_AVX512VL = const(1 << 31)

LEAF_7_ECX_AVX512_VBMI = const(1 << 1)
LEAF_7_ECX_UMIP = const(1 << 2)
LEAF_7_ECX_PKU = const(1 << 3)
LEAF_7_ECX_OSPKE = const(1 << 4)
LEAF_7_ECX_AVX512_VBMI2 = const(1 << 6)
LEAF_7_ECX_GFNI = const(1 << 8)
LEAF_7_ECX_VAES = const(1 << 9)
LEAF_7_ECX_VPCLMULQDQ = const(1 << 10)
LEAF_7_ECX_AVX512_VNNI = const(1 << 11)
LEAF_7_ECX_AVX512_BITALG = const(1 << 12)
LEAF_7_ECX_AVX512_VPOPCNTDQ = const(1 << 14)
LEAF_7_ECX_RDPID = const(1 << 22)

LEAF_7_EDX_FSRM = const(1 << 4)
LEAF_7_EDX_MD_CLEAR = const(1 << 10)
LEAF_7_EDX_IBRS_IBPB = const(1 << 26)
LEAF_7_EDX_STIBP = const(1 << 27)
LEAF_7_EDX_L1D_FLUSH = const(1 << 28)
LEAF_7_EDX_ARCH_CAPABILITIES = const(1 << 29)
LEAF_7_EDX_SSBD = const(1 << 31)

LEAF_7_2_EDX_BHI_CTRL = const(1 << 4)

LEAF_D_1_EAX_XSAVEOPT = const(1 << 0)
LEAF_D_1_EAX_XSAVEC = const(1 << 1)
LEAF_D_1_EAX_XGETBV_1 = const(1 << 2)
LEAF_D_1_EAX_XSAVES = const(1 << 3)
LEAF_D_ECX_SUPERVISOR = const(1 << 0)  # a component of IA32_XSS
LEAF_D_ECX_ALIGNED = const(1 << 1)  # to 64 bytes, in the compacted format

EXTENDED_1_ECX_LAHF = const(1 << 0)
EXTENDED_1_ECX_LZCNT = const(1 << 5)
EXTENDED_1_ECX_PREFETCHW = const(1 << 8)
EXTENDED_1_EDX_SYSCALL = const(1 << 11)
EXTENDED_1_EDX_NX = const(1 << 20)
EXTENDED_1_EDX_PAGE_1G = const(1 << 26)
EXTENDED_1_EDX_RDTSCP = const(1 << 27)
EXTENDED_1_EDX_LM = const(1 << 29)
EXTENDED_7_EDX_INVARIANT_TSC = const(1 << 8)

# State components: bits of XCR0.
XCR0_X87 = const(1 << 0)
XCR0_SSE = const(1 << 1)
XCR0_AVX = const(1 << 2)
XCR0_AVX512 = const(7 << 5)  # opmask, ZMM_Hi256, Hi16_ZMM
XCR0_PKRU = const(1 << 9)
