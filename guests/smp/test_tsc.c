/* The TSCs agree: what one CPU reads is never before what another has read (the way of Linux's check: both read under one
 * lock), and TSC_ADJUST is each CPU's own (SDM Vol. 3B, "Time-Stamp Counter Adjustment"). */
#include "suite.h"

#define READS 4000

static u32 lock;
static volatile u64 last;
static volatile u32 warps;
static volatile u64 largest;

static void read_under_lock(void) {
    barrier();
    for (u32 turn = 0; turn < READS; turn++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST)) {
            pause();
        }
        u64 before = last, now = rdtsc();
        last = now;
        if (now < before) {
            warps++;
            largest = before - now > largest ? before - now : largest;
        }
        __atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
    }
}

static bool adjust_is_zero(void) {
    return rdmsr(IA32_TSC_ADJUST) == 0;
}

static void move(void) {
    wrmsr(IA32_TSC_ADJUST, 0x100000000);
}

static void move_back(void) {
    wrmsr(IA32_TSC_ADJUST, 0);
}

static bool is_ahead(void) {
    u64 before = last, now = rdtsc();
    return now - before >= 0x100000000;
}

void test_tsc(void) {
    run_everywhere(read_under_lock);
    check("no TSC is behind what another was", warps, 0);
    check("by no ticks", largest, 0);
    static const char *const names[] = {
        "TSC_ADJUST is 0 on all", "it moves the TSC of its CPU only", "and back"};
    if (!(cpuid_leaf(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST)) {
        for (u32 name = 0; name < COUNT(names); name++) {
            skip(names[name], "no TSC_ADJUST");
        }
        return;
    }
    check(names[0], where(adjust_is_zero), ALL);
    run_on(cpus - 1, move);
    last = rdtsc();
    check(names[1], where(is_ahead), 1u << (cpus - 1));
    run_on(cpus - 1, move_back);
    warps = 0;
    last = 0;
    run_everywhere(read_under_lock);
    check(names[2], warps, 0);
}
