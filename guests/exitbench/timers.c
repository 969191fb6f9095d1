/* Rows of the APIC timer in TSC-deadline mode: what arming costs, and how late its interrupt comes.
 *
 * Lateness is from the deadline to the first RDTSC of the handler, so it has a share of the CPU's own delivery of an
 * interrupt and of the handler's first instructions; the native column shows how large that is.
 */
#include "apic.h"
#include "bench.h"

#define X2APIC(offset) (0x800 + ((offset) >> 4))
#define FAR            1000000000u /* never reached */
#define NEAR           20000 /* ticks from arming to the deadline */
#define HLT            20000

const char *deadline_begin(void) {
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

void tsc_deadline_arm_measure(u32 *samples, u32 rounds) {
    for (u32 i = 0; i < rounds; i++) {
        u64 deadline = rdtsc() + FAR;
        u32 before = ticks();
        wrmsr(IA32_TSC_DEADLINE, deadline);
        samples[i] = ticks() - before;
    }
}

void tsc_deadline_arm_once(void) {
    u64 deadline = rdtsc() + FAR;
    mark();
    wrmsr(IA32_TSC_DEADLINE, deadline);
    mark();
}

void deadline_end(void) {
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

/* STI's shadow reaches over the HLT, so that the interrupt cannot come between them. */
static u32 hlt(void) {
    timer_came = false;
    u64 deadline = rdtsc() + NEAR;
    wrmsr(IA32_TSC_DEADLINE, deadline);
    while (!timer_came) {
        asm volatile("sti; hlt; cli" : : : "memory");
    }
    return timer_ticks - (u32)deadline;
}

#define LATENESS(name)                                                                             \
    void late_##name##_measure(u32 *samples, u32 rounds) {                                         \
        for (u32 i = 0; i < rounds; i++) {                                                         \
            samples[i] = name();                                                                   \
        }                                                                                          \
    }                                                                                              \
    void late_##name##_once(void) {                                                                \
        mark();                                                                                    \
        name();                                                                                    \
        mark();                                                                                    \
    }

LATENESS(spin)
LATENESS(hlt)
