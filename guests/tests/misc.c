/* What is left: time stamps, caches, counters, MONITOR, random numbers, descriptor-table registers. */
#include "test.h"

static void time_stamps(void) {
    u64 last = rdtsc();
    bool rises = true;
    for (u32 turn = 0; turn < 1000; turn++) {
        u64 now = rdtsc();
        rises &= now >= last;
        last = now;
    }
    check_true("RDTSC never falls", rises);
    if (cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_RDTSCP) {
        u64 old = rdmsr(IA32_TSC_AUX);
        wrmsr(IA32_TSC_AUX, 0x1234);
        u32 low, high, aux;
        asm volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
        wrmsr(IA32_TSC_AUX, old);
        check("RDTSCP has TSC_AUX", aux, 0x1234);
        check_true("RDTSCP agrees with RDTSC", (low | (u64)high << 32) >= last);
    } else {
        ATTEMPT("rdtscp", : : : "eax", "ecx", "edx");
        check_trap("RDTSCP is #UD", UD, 0);
    }
}

static void random_numbers(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_RDRAND)) {
        ATTEMPT(".byte 0x0f, 0xc7, 0xf0", : : : REG_AX);
        check_trap("RDRAND is #UD", UD, 0);
        return;
    }
    u32 value = 0, all = 0;
    u8 carry = 0;
    for (u32 turn = 0; turn < 20; turn++) {
        asm volatile("rdrand %0; setc %1" : "=r"(value), "=q"(carry) : : "cc");
        all |= carry ? value : 0;
    }
    check_true("RDRAND gives numbers", all);
}

static void monitor(void) {
    static u32 watched;
    bool shown = cpuid(1, 0).ecx & CPUID_1_ECX_MONITOR;
    ATTEMPT("monitor", : : "a"(&watched), "c"(0), "d"(0));
    excuse(on_tcg() && !shown, NO_TRAP, "TCG has MONITOR whatever CPUID says");
    check_trap("MONITOR as CPUID says", shown ? NONE : UD, 0);
    if (shown) {
        ATTEMPT("monitor", : : "a"(&watched), "c"(1), "d"(0));
        check_trap("MONITOR refuses an extension", GP, 0);
    } else {
        skip("MONITOR refuses an extension", "no MONITOR");
    }
}

static void tables(void) {
    struct PACKED {
        u16 limit;
        word base;
    } before, after;
    __builtin_memset(&before, 0, sizeof(before));
    __builtin_memset(&after, 0, sizeof(after));
#if REAL16
#define SIZED "l"
#else
#define SIZED ""
#endif
    asm volatile("sgdt" SIZED " %0; lgdt" SIZED " %0; sgdt" SIZED " %1"
                 : "+m"(before), "=m"(after));
    check_true(
        "SGDT and LGDT round trip", before.limit == after.limit && before.base == after.base);
    asm volatile("sidt" SIZED " %0; lidt" SIZED " %0; sidt" SIZED " %1"
                 : "+m"(before), "=m"(after));
    check_true(
        "SIDT and LIDT round trip", before.limit == after.limit && before.base == after.base);
}

static void locked(void) {
    static u64 value;
    u32 low = 0, high = 0;
    u8 equal;
    value = 0;
    asm volatile("lock cmpxchg8b %0; setz %1"
                 : "+m"(value), "=q"(equal), "+a"(low), "+d"(high)
                 : "b"(0x55), "c"(0x66)
                 : "cc");
    check("CMPXCHG8B", equal ? value : 0, 0x6600000055ull);
}

void test_misc(void) {
    time_stamps();
    ATTEMPT("wbinvd", : : : "memory");
    check_trap("WBINVD", NONE, 0);
    ATTEMPT("rdpmc", : : "c"(0x3fffffff) : "eax", "edx");
    excuse(on_tcg(), TRAP(UD, 0), "TCG has no performance counters and no check of their number");
    check_trap("RDPMC of a counter that is not there", GP, 0);
    ATTEMPT("pause", :);
    check_trap("PAUSE", NONE, 0);
    monitor();
    random_numbers();
    tables();
    locked();
}
