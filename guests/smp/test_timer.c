/* A local timer for each CPU, all at once (SDM Vol. 3A, "APIC Timer"). */
#include "suite.h"

#define SHORT   40000
#define PERIOD  400000
#define PERIODS 5

static volatile u32 late;

static void one_shot(void) {
    cli();
    apic_write(APIC_DCR, APIC_DIVIDE_1);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    barrier();
    apic_write(APIC_INITIAL_COUNT, SHORT * (this_cpu() + 1));
    sti();
    reached(&cpu[this_cpu()].came[VECTOR_TIMER], 1);
    wait_ticks(SHORT * 4);
    cli();
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void halted(void) {
    cli();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    barrier();
    apic_write(APIC_INITIAL_COUNT, SHORT * (cpus - this_cpu()));
    asm volatile("sti; hlt; cli" : : : "memory");
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void periodic(void) {
    cli();
    apic_write(APIC_LVT_TIMER, APIC_PERIODIC | VECTOR_TIMER);
    barrier();
    apic_write(APIC_INITIAL_COUNT, PERIOD);
    sti();
    if (!reached(&cpu[this_cpu()].came[VECTOR_TIMER], PERIODS)) {
        __atomic_add_fetch(&late, 1, __ATOMIC_SEQ_CST);
    }
    cli();
    apic_write(APIC_INITIAL_COUNT, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void deadline(void) {
    cli();
    apic_write(APIC_LVT_TIMER, APIC_DEADLINE | VECTOR_TIMER);
    asm volatile("mfence" : : : "memory");
    barrier();
    for (u32 turn = 0; turn < PERIODS; turn++) {
        u32 want = cpu[this_cpu()].came[VECTOR_TIMER] + 1;
        u64 when = rdtsc() + SHORT;
        wrmsr(IA32_TSC_DEADLINE, when);
        while (cpu[this_cpu()].came[VECTOR_TIMER] < want) {
            asm volatile("sti; hlt; cli" : : : "memory");
        }
        if (rdtsc() < when) {
            __atomic_add_fetch(&late, 1, __ATOMIC_SEQ_CST);
        }
    }
    wrmsr(IA32_TSC_DEADLINE, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void all(void) {
    count_here(VECTOR_TIMER);
    forget_counts();
    run_everywhere(one_shot);
    check("a one-shot fires once on each", who_got(VECTOR_TIMER, 1), ALL);
    forget_counts();
    run_everywhere(halted);
    check("it ends HLT on each", who_got(VECTOR_TIMER, 1), ALL);
    late = 0;
    forget_counts();
    run_everywhere(periodic);
    check("a periodic one fires again and again on each", late, 0);
    if (cpuid(1, 0).ecx & CPUID_1_ECX_TSC_DEADLINE) {
        late = 0;
        forget_counts();
        run_everywhere(deadline);
        check("deadlines on each", who_got(VECTOR_TIMER, PERIODS), ALL);
        check("none is early", late, 0);
    } else {
        skip("deadlines on each", "no TSC deadline");
        skip("none is early", "no TSC deadline");
    }
}

void test_timer(void) {
    all();
}

void test_x2_timer(void) {
    if (apic_is_x2()) {
        all();
    } else {
        skip("all", "no x2APIC");
    }
}
