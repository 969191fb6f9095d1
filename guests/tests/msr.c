/* RDMSR and WRMSR (SDM Vol. 2B; Vol. 4, "Model-Specific Registers"). */
#include "test.h"

#define NON_CANONICAL 0x8000000000000000ull
#define TCG_UNKNOWN   "TCG answers unknown MSRs with 0"
#define TCG_UNCHECKED "TCG does not check MSR values"

static void attempt_wrmsr(u32 msr, u64 value) {
    ATTEMPT("wrmsr", : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
}

static void attempt_rdmsr(u32 msr) {
    ATTEMPT("rdmsr", : : "c"(msr) : "eax", "edx");
}

static void round_trip(const char *name, u32 msr, u64 value) {
    u64 old = rdmsr(msr);
    attempt_wrmsr(msr, value);
    u64 got = trap.vector == NONE ? rdmsr(msr) : ~0ull;
    attempt_wrmsr(msr, old);
    check(name, got, value);
}

static void refused(const char *name, u32 msr, u64 value) {
    u64 old = rdmsr(msr);
    attempt_wrmsr(msr, value);
    excuse(on_tcg(), NO_TRAP, TCG_UNCHECKED);
    check_trap(name, GP, 0);
    attempt_wrmsr(msr, old);
}

static void unknown(const char *name, u32 msr) {
    attempt_rdmsr(msr);
    excuse(on_tcg(), NO_TRAP, TCG_UNKNOWN);
    check_trap(name, GP, 0);
}

static void system_calls(void) {
    if (cpuid(1, 0).edx & CPUID_1_EDX_SEP) {
        round_trip("SYSENTER_CS round trip", IA32_SYSENTER_CS, 0x1238);
        round_trip("SYSENTER_ESP round trip", IA32_SYSENTER_ESP, 0x12345678);
        round_trip("SYSENTER_EIP round trip", IA32_SYSENTER_EIP, 0x9abcdef0);
    } else {
        skip("SYSENTER_CS round trip", "no SEP");
    }
    if (!(cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_LM)) {
        skip("STAR round trip", "no long mode");
        return;
    }
    round_trip("STAR round trip", IA32_STAR, 0x0018000812345678);
    round_trip("LSTAR round trip", IA32_LSTAR, 0xffff800012345678);
    round_trip("CSTAR round trip", IA32_CSTAR, 0x00007fff12345678);
    round_trip("FMASK round trip", IA32_FMASK, 0x00047700);
    round_trip("KERNEL_GS_BASE round trip", IA32_KERNEL_GS_BASE, 0xffffffff80000000);
    refused("LSTAR refuses a non-canonical address", IA32_LSTAR, NON_CANONICAL);
    refused("KERNEL_GS_BASE refuses a non-canonical address", IA32_KERNEL_GS_BASE, NON_CANONICAL);
#if LONG64
    round_trip("FS_BASE round trip", IA32_FS_BASE, 0xffff900000001000);
    round_trip("GS_BASE round trip", IA32_GS_BASE, 0x0000700000002000);
    static u32 place[2] = {0x600d, 0xbad};
    u32 loaded;
    wrmsr(IA32_GS_BASE, (word)place);
    asm volatile("movl %%gs:0, %0" : "=r"(loaded));
    wrmsr(IA32_GS_BASE, 0);
    check("GS_BASE is the base of GS", loaded, 0x600d);
#endif
}

static void efer(void) {
    u64 old = rdmsr(IA32_EFER);
    round_trip("EFER.SCE round trip", IA32_EFER, old ^ EFER_SCE);
    refused("EFER refuses a reserved bit", IA32_EFER, old | 1u << 9);
    refused("EFER refuses a reserved upper bit", IA32_EFER, old | 1ull << 40);
    check("EFER.LMA tells the mode", old & EFER_LMA, LONG64 ? EFER_LMA : 0);
    if (cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_NX) {
        round_trip("EFER.NXE round trip", IA32_EFER, old ^ EFER_NXE);
    } else {
        skip("EFER.NXE round trip", "no NX");
    }
#if LONG64
    refused("EFER refuses to drop LME while paging", IA32_EFER, old & ~(u64)EFER_LME);
#endif
}

static void memory_types(void) {
    if (cpuid(1, 0).edx & CPUID_1_EDX_PAT) {
        round_trip("PAT round trip", IA32_PAT, 0x0007010600070406);
        refused("PAT refuses type 2", IA32_PAT, 0x0007040600070402);
        refused("PAT refuses type 8", IA32_PAT, 0x0807040600070406);
    } else {
        skip("PAT round trip", "no PAT");
    }
    if (cpuid(1, 0).edx & CPUID_1_EDX_MTRR) {
        attempt_rdmsr(IA32_MTRRCAP);
        check_trap("MTRRCAP reads", NONE, 0);
        u64 capability = rdmsr(IA32_MTRRCAP);
        attempt_wrmsr(IA32_MTRRCAP, capability);
        excuse(on_tcg(), NO_TRAP, TCG_UNCHECKED);
        check_trap("MTRRCAP refuses a write", GP, 0);
        round_trip("MTRR_DEF_TYPE round trip", IA32_MTRR_DEF_TYPE, rdmsr(IA32_MTRR_DEF_TYPE));
        refused("MTRR_DEF_TYPE refuses type 2", IA32_MTRR_DEF_TYPE, 0xc02);
    } else {
        skip("MTRRCAP reads", "no MTRR");
    }
}

static void time_stamp(void) {
    const u64 jump = 1ull << 40;
    u64 before = rdtsc();
    wrmsr(IA32_TIME_STAMP_COUNTER, before + jump);
    u64 after = rdtsc();
    u64 moved = (after - before) >> 40;
    if (moved) {
        wrmsr(IA32_TIME_STAMP_COUNTER, rdtsc() - jump);
    }
    excuse(on_tcg(), 0, "TCG ignores a write to the TSC");
    check("a write to the TSC moves it", moved, 1);
    u64 read = rdmsr(IA32_TIME_STAMP_COUNTER);
    check_true("RDMSR of the TSC agrees with RDTSC", read <= rdtsc());
    if (cpuid_leaf(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST) {
        u64 adjust = rdmsr(IA32_TSC_ADJUST);
        before = rdtsc();
        wrmsr(IA32_TSC_ADJUST, adjust + jump);
        moved = (rdtsc() - before) >> 40;
        u64 got = rdmsr(IA32_TSC_ADJUST);
        wrmsr(IA32_TSC_ADJUST, adjust);
        check("TSC_ADJUST round trip", got, adjust + jump);
        check("TSC_ADJUST moves the TSC", moved, 1);
    } else {
        skip("TSC_ADJUST round trip", "no TSC_ADJUST");
        skip("TSC_ADJUST moves the TSC", "no TSC_ADJUST");
    }
}

static void vmx(void) {
    bool shown = cpuid(1, 0).ecx & CPUID_1_ECX_VMX;
    attempt_rdmsr(IA32_VMX_BASIC);
    excuse(on_tcg(), NO_TRAP, TCG_UNKNOWN);
    check_trap("VMX_BASIC exists as CPUID says", shown ? NONE : GP, 0);
}

void test_msr(void) {
    attempt_rdmsr(IA32_APIC_BASE);
    if (trap.vector == NONE && cpuid(1, 0).edx & CPUID_1_EDX_APIC) {
        check(
            "APIC_BASE is FEE00000H, enabled, BSP", rdmsr(IA32_APIC_BASE) & ~0x400ull, 0xfee00900);
        refused("APIC_BASE refuses a reserved bit", IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | 1);
    } else {
        skip("APIC_BASE is FEE00000H, enabled, BSP", "no APIC");
    }
    system_calls();
    efer();
    memory_types();
    time_stamp();
    vmx();
    unknown("RDMSR of an unknown MSR", 0xdead);
    unknown("RDMSR past the MSR ranges", 0x40001234);
    unknown("RDMSR of an unknown upper MSR", 0xc0001fff);
    attempt_wrmsr(0xdead, 0);
    excuse(on_tcg(), NO_TRAP, TCG_UNKNOWN);
    check_trap("WRMSR of an unknown MSR", GP, 0);
#if LONG64
    u64 a = ~0ull, d = ~0ull;
    asm volatile("rdmsr" : "+a"(a), "+d"(d) : "c"(IA32_SYSENTER_CS));
    check("RDMSR clears the upper halves", (a | d) >> 32, 0);
    u64 c = 0xffffffff00000000ull | IA32_SYSENTER_CS;
    ATTEMPT("rdmsr", : : "c"(c) : "rax", "rdx");
    check_trap("RDMSR ignores the upper half of RCX", NONE, 0);
#endif
}
