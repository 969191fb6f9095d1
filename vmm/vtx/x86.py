"""Bits of architectural registers, by the SDM's names (Vol. 3A, "Control Registers", "System Flags", "Extended Feature
Enable Register"; Vol. 4 for MSRs). Only those that more than one module needs.
"""

from micropython import const

PAGE = const(0x1000)  # bytes
PAGE_MASK = const(0xFFFFFFFFFFFFF000)
MASK32 = const(0xFFFFFFFF)
MASK64 = const(0xFFFFFFFFFFFFFFFF)
INSTRUCTION_BYTES = const(15)  # of the longest instruction
INT3 = const(0xCC)  # its opcode
XSTATE_BV = const(512)  # offset in an XSAVE area
MXCSR = const(24)  # likewise
MXCSR_RESET = const(0x1F80)
APIC_BASE = const(0xFEE00000)  # gpa of the local APIC after a reset
APIC_BASE_EXTD = const(1 << 10)  # of IA32_APIC_BASE
APIC_BASE_ENABLE = const(1 << 11)
X2APIC_MSRS = const(0x800)  # the first of the local APIC's 64: one for 16 bytes of its page
IOAPIC_BASE = const(0xFEC00000)  # gpa of the I/O APIC in every PC

CR0_PE = const(1 << 0)
CR0_MP = const(1 << 1)
CR0_EM = const(1 << 2)
CR0_TS = const(1 << 3)
CR0_ET = const(1 << 4)
CR0_NE = const(1 << 5)
CR0_WP = const(1 << 16)
CR0_AM = const(1 << 18)
CR0_NW = const(1 << 29)
CR0_CD = const(1 << 30)
CR0_PG = const(1 << 31)
CR0_DEFINED = const(0xE005003F)

CR4_TSD = const(1 << 2)
CR4_DE = const(1 << 3)
CR4_PSE = const(1 << 4)
CR4_PAE = const(1 << 5)
CR4_MCE = const(1 << 6)
CR4_OSFXSR = const(1 << 9)
CR4_OSXMMEXCPT = const(1 << 10)
CR4_UMIP = const(1 << 11)
CR4_LA57 = const(1 << 12)
CR4_VMXE = const(1 << 13)
CR4_FSGSBASE = const(1 << 16)
CR4_PCIDE = const(1 << 17)
CR4_OSXSAVE = const(1 << 18)
CR4_SMEP = const(1 << 20)
CR4_SMAP = const(1 << 21)
CR4_PKE = const(1 << 22)
CR4_CET = const(1 << 23)

EFER_SCE = const(1 << 0)
EFER_LME = const(1 << 8)
EFER_LMA = const(1 << 10)
EFER_NXE = const(1 << 11)

DEBUGCTL_LBR = const(1 << 0)
DEBUGCTL_BTF = const(1 << 1)

RFLAGS_CF = const(1 << 0)
RFLAGS_FIXED = const(1 << 1)  # always 1
RFLAGS_ZF = const(1 << 6)
RFLAGS_TF = const(1 << 8)
RFLAGS_IF = const(1 << 9)
RFLAGS_DF = const(1 << 10)
RFLAGS_NT = const(1 << 14)
RFLAGS_RF = const(1 << 16)
RFLAGS_VM = const(1 << 17)
RFLAGS_AC = const(1 << 18)

IA32_TSC = const(0x10)
IA32_APIC_BASE = const(0x1B)
IA32_TSC_ADJUST = const(0x3B)
IA32_BIOS_SIGN_ID = const(0x8B)
IA32_SYSENTER_CS = const(0x174)
IA32_SYSENTER_ESP = const(0x175)
IA32_SYSENTER_EIP = const(0x176)
IA32_MCG_CAP = const(0x179)
IA32_MCG_STATUS = const(0x17A)
IA32_PAT = const(0x277)
IA32_MC0_CTL = const(0x400)
IA32_TSC_DEADLINE = const(0x6E0)
IA32_X2APIC_TPR = const(0x808)
IA32_X2APIC_EOI = const(0x80B)
IA32_X2APIC_ICR = const(0x830)
IA32_X2APIC_SELF_IPI = const(0x83F)
IA32_XSS = const(0xDA0)
IA32_EFER = const(0xC0000080)
IA32_STAR = const(0xC0000081)
IA32_LSTAR = const(0xC0000082)
IA32_CSTAR = const(0xC0000083)
IA32_FMASK = const(0xC0000084)
IA32_FS_BASE = const(0xC0000100)
IA32_GS_BASE = const(0xC0000101)
IA32_KERNEL_GS_BASE = const(0xC0000102)
IA32_TSC_AUX = const(0xC0000103)
