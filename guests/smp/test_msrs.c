/* MSRs that are each CPU's own: what one writes no other reads, however often they take turns. */
#include "suite.h"

#define TURNS 20

struct msr {
    const char *name;
    u32 index;
    u64 base, step; /* what CPU N writes: base + N * step */
    bool (*here)(void); /* may be absent */
};

static bool has_rdtscp(void) {
    return cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_RDTSCP;
}

static bool has_adjust(void) {
    return cpuid_leaf(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST;
}

static bool has_pat(void) {
    return cpuid(1, 0).edx & CPUID_1_EDX_PAT;
}

static const struct msr msrs[] = {
    {"FS_BASE", IA32_FS_BASE, 0x100000, 0x1000, NULL},
    {"GS_BASE", IA32_GS_BASE, 0x200000, 0x1000, NULL},
    {"KERNEL_GS_BASE", IA32_KERNEL_GS_BASE, 0x7fff00000000, 0x1000, NULL},
    {"STAR", IA32_STAR, 0x0023001000000000, 0x100000000, NULL},
    {"LSTAR", IA32_LSTAR, 0xffffffff81000000, 0x100, NULL},
    {"CSTAR", IA32_CSTAR, 0xffffffff82000000, 0x100, NULL},
    {"FMASK", IA32_FMASK, 0x200, 0x100, NULL},
    {"SYSENTER_CS", IA32_SYSENTER_CS, 8, 8, NULL},
    {"SYSENTER_ESP", IA32_SYSENTER_ESP, 0x300000, 0x10, NULL},
    {"SYSENTER_EIP", IA32_SYSENTER_EIP, 0x400000, 0x10, NULL},
    {"TSC_AUX", IA32_TSC_AUX, 0x50, 1, has_rdtscp},
    {"PAT", IA32_PAT, 0x0007040600070406, 0, has_pat},
    {"TSC_ADJUST", IA32_TSC_ADJUST, 0x10000, 0x100, has_adjust},
    {"EFER", IA32_EFER, EFER_LMA | EFER_LME, EFER_SCE, NULL},
};

static const struct msr *row;
static u64 old[CPUS_MAX];
static volatile u32 wrong;

/* EFER: SCE on the odd ones. PAT: entry 7 is the CPU's. */
static u64 own_value(void) {
    u64 number = this_cpu();
    if (row->index == IA32_EFER) {
        return row->base | (number & 1 ? EFER_SCE : 0);
    }
    if (row->index == IA32_PAT) {
        static const u8 types[] = {0, 1, 4, 5, 6, 7};
        return (row->base & ~(0xffull << 56)) | (u64)types[number % sizeof(types)] << 56;
    }
    return row->base + number * row->step;
}

static void use(void) {
    cli();
    u32 self = this_cpu();
    old[self] = rdmsr(row->index);
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        wrmsr(row->index, own_value());
        barrier();
        if (rdmsr(row->index) != own_value()) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
        barrier();
    }
    wrmsr(row->index, old[self]);
}

static void tsc_aux(void) {
    u64 before = rdmsr(IA32_TSC_AUX);
    wrmsr(IA32_TSC_AUX, 0x70 + this_cpu());
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 low, high, aux;
        barrier();
        asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
        if (aux != 0x70 + this_cpu()) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
    }
    wrmsr(IA32_TSC_AUX, before);
}

void test_msrs(void) {
    for (u32 at = 0; at < COUNT(msrs); at++) {
        row = &msrs[at];
        if (row->here && !row->here()) {
            skip(row->name, "no such MSR");
            continue;
        }
        wrong = 0;
        run_everywhere(use);
        check(row->name, wrong, 0);
    }
    wrong = 0;
    if (has_rdtscp()) {
        run_everywhere(tsc_aux);
        check("RDTSCP names the CPU", wrong, 0);
    } else {
        skip("RDTSCP names the CPU", "no RDTSCP");
    }
}
