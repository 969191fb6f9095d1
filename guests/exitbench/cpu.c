/* Rows of instructions that concern the CPU itself: CPUID, MSRs, VMCALL, control registers, exceptions. */
#include "bench.h"
#include "descriptors.h"

#define UNKNOWN_CALL 0x7fff0001u /* an unclaimed VMCALL number */
#define SYSTEM_CALL  1u /* the number of one */
#define UNKNOWN_LEAF 0x20000000u /* between the basic and the extended leaves of any CPU */

static u64 adjust, cr0, cr4;
static word cr3;

OPERATION(cpuid, cpuid(0, 0))
OPERATION(cpuid_7, cpuid(7, 0))
OPERATION(cpuid_d1, cpuid(0xd, 1))
OPERATION(cpuid_unknown, cpuid(UNKNOWN_LEAF, 0))
OPERATION(rdmsr, rdmsr(IA32_APIC_BASE))
OPERATION(rdmsr_adjust, rdmsr(IA32_TSC_ADJUST))
OPERATION(wrmsr, wrmsr(IA32_TSC_ADJUST, adjust))
OPERATION(wrmsr_fs_base, wrmsr(IA32_FS_BASE, (word)&adjust))
OPERATION(vmcall, asm volatile("vmcall" : : "a"(UNKNOWN_CALL) : "memory"))
OPERATION(syscall, {
    u64 number = SYSTEM_CALL;
    asm volatile("syscall" : "+a"(number) : : "rcx", "r11", "memory", "cc");
})
OPERATION(rdrand, {
    u64 number;
    asm volatile("rdrand %0" : "=r"(number) : : "memory", "cc");
})
OPERATION(nop, asm volatile("nop" : : : "memory"))
OPERATION(wbinvd, asm volatile("wbinvd" : : : "memory"))
OPERATION(int3, asm volatile("int3" : : : "memory"))
OPERATION(ud2, asm volatile("ud2" : : : "memory"))
OPERATION(cr0_et, write_cr0(cr0 & ~(u64)CR0_ET))
OPERATION(cr0_ts, write_cr0(cr0 ^ (i & 1 ? CR0_TS : 0)))
STEPS(clts, write_cr0(cr0 | CR0_TS), asm volatile("clts" : : : "memory"), )
OPERATION(cr3_write, asm volatile("mov %0, %%cr3" : : "r"(cr3) : "memory"))
OPERATION(cr4_write, write_cr4(cr4 ^ (i & 1 ? CR4_SMEP : 0)))
OPERATION(cr8_write, asm volatile("movq %0, %%cr8" : : "r"((u64)(i & 1)) : "memory"))

/* Back from a system call, to a caller that is no program: SYSRET would go to CPL 3. */
extern const u8 syscall_entry[];
asm("syscall_entry: jmp *%rcx");

static const char *syscall_begin(void) {
    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_SCE);
    wrmsr(IA32_STAR, (u64)KERNEL_CS << 32);
    wrmsr(IA32_FMASK, 0);
    wrmsr(IA32_LSTAR, (word)syscall_entry);
    return NULL;
}

/* A policy that skips CPUID leaves the leaf's number in EAX, which is no highest leaf. */
static bool has_leaf(u32 leaf) {
    u32 highest = cpuid(0, 0).eax;
    return !highest || highest >= leaf;
}

static const char *adjust_begin(void) {
    if (!has_leaf(7) || !(cpuid(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST)) {
        return "the CPU has no IA32_TSC_ADJUST";
    }
    adjust = rdmsr(IA32_TSC_ADJUST);
    return NULL;
}

static const char *cpuid_d1_begin(void) {
    return has_leaf(0xd) ? NULL : "the CPU has no leaf 0DH";
}

static const char *rdrand_begin(void) {
    return cpuid(1, 0).ecx & CPUID_1_ECX_RDRAND ? NULL : "the CPU has no RDRAND";
}

static const char *cr0_begin(void) {
    cr0 = read_cr0();
    return NULL;
}

/* With NE clear the guest's TS is not the CPU's: VMX operation requires NE set, and CR0.NE says what else is emulated. */
static const char *ne_begin(void) {
    cr0 = read_cr0() & ~(u64)CR0_NE;
    write_cr0(cr0);
    return NULL;
}

static void ne_end(void) {
    write_cr0(cr0 | CR0_NE);
}

static const char *cr3_begin(void) {
    asm volatile("mov %%cr3, %0" : "=r"(cr3));
    return NULL;
}

static const char *smep_begin(void) {
    cr4 = read_cr4();
    return has_leaf(7) && cpuid(7, 0).ebx & CPUID_7_EBX_SMEP ? NULL : "the CPU has no SMEP";
}

static void smep_end(void) {
    write_cr4(cr4);
}

static void cr8_end(void) {
    asm volatile("movq %0, %%cr8" : : "r"((u64)0) : "memory");
}

static const struct row cpu_rows[] = {
    ROW(page_first_touch, .begin = touch_begin),
    ROW(cpuid),
    ROW(cpuid_7),
    ROW(cpuid_d1, .begin = cpuid_d1_begin),
    ROW(cpuid_unknown),
    ROW(rdmsr),
    ROW(rdmsr_adjust, .begin = adjust_begin),
    ROW(wrmsr, .begin = adjust_begin),
    ROW(wrmsr_fs_base),
    ROW(vmcall, .begin = hypervisor_begin),
    ROW(syscall, .begin = syscall_begin),
    ROW(rdrand, .begin = rdrand_begin),
    ROW(nop),
    ROW(wbinvd),
    ROW(int3),
    ROW(ud2),
    ROW(cr0_et, .begin = cr0_begin),
    ROW(cr0_ts, .begin = ne_begin, .end = ne_end),
    ROW(clts, .begin = ne_begin, .end = ne_end),
    ROW(cr3_write, .begin = cr3_begin),
    ROW(cr4_write, .begin = smep_begin, .end = smep_end),
    ROW(cr8_write, .end = cr8_end),
};
GROUP(cpu);
