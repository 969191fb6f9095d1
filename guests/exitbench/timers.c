/* Rows of the APIC timer in TSC-deadline mode: what arming costs, and how late its interrupt comes.
 *
 * Lateness is from the deadline to the first RDTSC of the handler, so it has a share of the CPU's own delivery of an
 * interrupt and of the handler's first instructions; the native column shows how large that is.
 */
#include "apic.h"
#include "bench.h"

#define FAR  1000000000u /* never reached */
#define NEAR 20000 /* ticks from arming to the deadline */

static const char *deadline_begin(void) {
    const char *reason = x2apic_on();
    if (reason) {
        return reason;
    }
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_TSC_DEADLINE)) {
        return "the CPU has no TSC-deadline mode";
    }
    wrmsr(X2APIC(APIC_LVT_TIMER), APIC_DEADLINE | VECTOR_TIMER);
    return NULL;
}

static void tsc_deadline_arm_measure(u32 *samples, u32 rounds) {
    for (u32 i = 0; i < rounds; i++) {
        u64 deadline = rdtsc() + FAR;
        u32 before = ticks();
        wrmsr(IA32_TSC_DEADLINE, deadline);
        samples[i] = ticks() - before;
    }
}

static void tsc_deadline_arm_once(void) {
    u64 deadline = rdtsc() + FAR;
    mark();
    wrmsr(IA32_TSC_DEADLINE, deadline);
    mark();
}

static void deadline_end(void) {
    wrmsr(IA32_TSC_DEADLINE, 0);
    wrmsr(X2APIC(APIC_LVT_TIMER), APIC_MASKED);
}

static u32 spin(void) {
    timer_came = false;
    u64 deadline = rdtsc() + NEAR;
    wrmsr(IA32_TSC_DEADLINE, deadline);
    sti();
    while (!timer_came) {
    }
    cli();
    return timer_ticks - (u32)deadline;
}

/* STI's shadow reaches over the HLT, so that no interrupt is delivered between them. */
static u32 hlt(void) {
    timer_came = false;
    u64 deadline = rdtsc() + NEAR;
    wrmsr(IA32_TSC_DEADLINE, deadline);
    while (!timer_came) {
        asm volatile("sti; hlt; cli" : : : "memory");
    }
    return timer_ticks - (u32)deadline;
}

/* Arming, and from the deadline over handler and EOI back to the program. */
static u32 round_trip(void) {
    timer_came = false;
    u64 deadline = rdtsc() + NEAR;
    u32 before = ticks();
    wrmsr(IA32_TSC_DEADLINE, deadline);
    u32 arming = ticks() - before;
    sti();
    while (!timer_came) {
    }
    cli();
    return arming + ticks() - (u32)deadline;
}

#define WHOLE(name, figure)                                                                        \
    static void name##_measure(u32 *samples, u32 rounds) {                                         \
        for (u32 i = 0; i < rounds; i++) {                                                         \
            samples[i] = figure;                                                                   \
        }                                                                                          \
    }                                                                                              \
    static void name##_once(void) {                                                                \
        mark();                                                                                    \
        figure;                                                                                    \
        mark();                                                                                    \
    }

WHOLE(tsc_deadline_round, round_trip())
WHOLE(late_spin, spin())
WHOLE(late_hlt, hlt())

static const struct row timers_rows[] = {
    ROW(tsc_deadline_arm, .begin = deadline_begin, .end = deadline_end),
    ROW(tsc_deadline_round, .begin = deadline_begin, .end = deadline_end, .whole = true),
    ROW(late_spin, .begin = deadline_begin, .end = deadline_end, .whole = true),
    ROW(late_hlt, .begin = deadline_begin, .end = deadline_end, .whole = true),
};
GROUP(timers);
