// RDRAND where the CPU has it; otherwise the TSC, mixed by SplitMix64. The latter
// is not fit for secrets, but such CPUs lack the VT-x features that guests need.
// Source: SDM Vol. 1, "RDRAND"; Steele, Lea, Flood, "Fast Splittable Pseudorandom
// Number Generators", 2014.
#include "port/random.h"
#include "port/x86.h"

#define RDRAND_TRIES 10

static uint64_t stir(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

// Asked once: CPUID is an exit where the monitor is a guest itself.
static bool has_rdrand(void) {
    static enum { UNKNOWN, NO, YES } has;
    if (has == UNKNOWN) {
        has = cpuid(1, 0).ecx & CPUID_1_ECX_RDRAND ? YES : NO;
    }
    return has == YES;
}

uint64_t pcanel_random(void) {
    static uint64_t seed;
    if (has_rdrand()) {
        for (int i = 0; i < RDRAND_TRIES; i++) {
            uint64_t value;
            bool ok;
            __asm volatile("rdrand %0" : "=r"(value), "=@ccc"(ok));
            if (ok) {
                return value;
            }
        }
    }
    seed = stir(seed ^ rdtsc());
    return seed;
}
