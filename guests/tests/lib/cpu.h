/* Instructions and registers, by their SDM names. */
#ifndef TESTS_CPU_H
#define TESTS_CPU_H

#include "types.h"

enum {
    DE = 0,
    DB = 1,
    NMI = 2,
    BP = 3,
    OF = 4,
    BR = 5,
    UD = 6,
    NM = 7,
    DF = 8,
    TS = 10,
    NP = 11,
    SS = 12,
    GP = 13,
    PF = 14,
    MF = 16,
    AC = 17,
    XM = 19,
};

#define FLAGS_TF 0x100u
#define FLAGS_IF 0x200u
#define FLAGS_NT 0x4000u
#define FLAGS_RF 0x10000u
#define FLAGS_AC 0x40000u

#define CR0_PE 0x1u
#define CR0_MP 0x2u
#define CR0_EM 0x4u
#define CR0_TS 0x8u
#define CR0_ET 0x10u
#define CR0_NE 0x20u
#define CR0_WP 0x10000u
#define CR0_AM 0x40000u
#define CR0_NW 0x20000000u
#define CR0_CD 0x40000000u
#define CR0_PG 0x80000000u

#define CR4_VME        0x1u
#define CR4_PVI        0x2u
#define CR4_TSD        0x4u
#define CR4_DE         0x8u
#define CR4_PSE        0x10u
#define CR4_PAE        0x20u
#define CR4_MCE        0x40u
#define CR4_PGE        0x80u
#define CR4_PCE        0x100u
#define CR4_OSFXSR     0x200u
#define CR4_OSXMMEXCPT 0x400u
#define CR4_UMIP       0x800u
#define CR4_LA57       0x1000u
#define CR4_VMXE       0x2000u
#define CR4_SMXE       0x4000u
#define CR4_FSGSBASE   0x10000u
#define CR4_PCIDE      0x20000u
#define CR4_OSXSAVE    0x40000u
#define CR4_SMEP       0x100000u
#define CR4_SMAP       0x200000u
#define CR4_PKE        0x400000u

#define IA32_TIME_STAMP_COUNTER 0x10
#define IA32_APIC_BASE          0x1b
#define IA32_FEATURE_CONTROL    0x3a
#define IA32_TSC_ADJUST         0x3b
#define IA32_MTRRCAP            0xfe
#define IA32_SYSENTER_CS        0x174
#define IA32_SYSENTER_ESP       0x175
#define IA32_SYSENTER_EIP       0x176
#define IA32_PAT                0x277
#define IA32_MTRR_DEF_TYPE      0x2ff
#define IA32_VMX_BASIC          0x480
#define IA32_TSC_DEADLINE       0x6e0
#define IA32_EFER               0xc0000080
#define IA32_STAR               0xc0000081
#define IA32_LSTAR              0xc0000082
#define IA32_CSTAR              0xc0000083
#define IA32_FMASK              0xc0000084
#define IA32_FS_BASE            0xc0000100
#define IA32_GS_BASE            0xc0000101
#define IA32_KERNEL_GS_BASE     0xc0000102
#define IA32_TSC_AUX            0xc0000103

#define EFER_SCE 0x1u
#define EFER_LME 0x100u
#define EFER_LMA 0x400u
#define EFER_NXE 0x800u

/* CPUID feature bits: register number (EAX 0 .. EDX 3) in the table of the leaf. */
#define CPUID_1_ECX_MONITOR       (1u << 3)
#define CPUID_1_ECX_VMX           (1u << 5)
#define CPUID_1_ECX_SMX           (1u << 6)
#define CPUID_1_ECX_X2APIC        (1u << 21)
#define CPUID_1_ECX_TSC_DEADLINE  (1u << 24)
#define CPUID_1_ECX_XSAVE         (1u << 26)
#define CPUID_1_ECX_OSXSAVE       (1u << 27)
#define CPUID_1_ECX_AVX           (1u << 28)
#define CPUID_1_ECX_RDRAND        (1u << 30)
#define CPUID_1_ECX_HYPERVISOR    (1u << 31)
#define CPUID_1_EDX_APIC          (1u << 9)
#define CPUID_1_EDX_SEP           (1u << 11)
#define CPUID_1_EDX_MTRR          (1u << 12)
#define CPUID_1_EDX_PAT           (1u << 16)
#define CPUID_7_EBX_FSGSBASE      (1u << 0)
#define CPUID_7_EBX_TSC_ADJUST    (1u << 1)
#define CPUID_7_EBX_SMEP          (1u << 7)
#define CPUID_7_EBX_SMAP          (1u << 20)
#define CPUID_7_ECX_UMIP          (1u << 2)
#define CPUID_7_ECX_PKU           (1u << 3)
#define CPUID_7_ECX_LA57          (1u << 16)
#define CPUID_80000001_EDX_NX     (1u << 20)
#define CPUID_80000001_EDX_RDTSCP (1u << 27)
#define CPUID_80000001_EDX_LM     (1u << 29)

/* Names of full registers, for asm texts that serve every mode. */
#if LONG64
#define REG(name) "r" name
#define LRET      "lretq"
#else
#define REG(name) "e" name
#define LRET      "lret"
#endif
#define REG_AX REG("ax")
#define REG_BX REG("bx")
#define REG_CX REG("cx")
#define REG_DX REG("dx")
#define REG_SI REG("si")
#define REG_DI REG("di")
#define REG_BP REG("bp")
#define REG_SP REG("sp")

struct cpuid {
    u32 eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(u32 leaf, u32 subleaf) {
    struct cpuid r;
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "0"(leaf), "2"(subleaf));
    return r;
}

/* Leaves that the CPU does not have read as zero, unlike the instruction's own answer. */
static inline struct cpuid cpuid_leaf(u32 leaf, u32 subleaf) {
    static const struct cpuid none;
    return cpuid(leaf & 0x80000000u, 0).eax >= leaf ? cpuid(leaf, subleaf) : none;
}

static inline u64 rdmsr(u32 msr) {
    u32 low, high;
    asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return low | (u64)high << 32;
}

static inline void wrmsr(u32 msr, u64 value) {
    asm volatile("wrmsr" : : "a"((u32)value), "d"((u32)(value >> 32)), "c"(msr) : "memory");
}

static inline u64 rdtsc(void) {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | (u64)high << 32;
}

static inline u8 inb(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u16 inw(u16 port) {
    u16 value;
    asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline u32 inl(u16 port) {
    u32 value;
    asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline void outb(u16 port, u8 value) {
    asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outw(u16 port, u16 value) {
    asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void outl(u16 port, u32 value) {
    asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

#define DEFINE_CR(n)                                                                               \
    static inline word read_cr##n(void) {                                                          \
        word value;                                                                                \
        asm volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                             \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_cr##n(word value) {                                                   \
        asm volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                                 \
    }
DEFINE_CR(0)
DEFINE_CR(2)
DEFINE_CR(3)
DEFINE_CR(4)
#undef DEFINE_CR

static inline word read_flags(void) {
    word value;
#if LONG64
    asm volatile("pushfq; popq %0" : "=r"(value) : : "memory");
#else
    asm volatile("pushfl; popl %0" : "=r"(value) : : "memory");
#endif
    return value;
}

static inline void sti(void) {
    asm volatile("sti" : : : "memory");
}

static inline void cli(void) {
    asm volatile("cli" : : : "memory");
}

static inline void pause(void) {
    asm volatile("pause" : : : "memory");
}

struct PACKED table_register {
    u16 limit;
    word base;
};

#endif
