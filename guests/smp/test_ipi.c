/* Interprocessor interrupts of every kind, by the page and by the MSRs (SDM Vol. 3A, "Issuing Interprocessor
   Interrupts"). One subject, hence one file: the kinds share the handlers that count. */
#include "suite.h"

#define LOGICAL    0x800u /* ICR */
#define LOWEST     0x100u /* delivery modes */
#define SMI        0x200u
#define ALL_SELF   0x80000u /* shorthands */
#define ALL_OTHERS 0xc0000u
#define FLAT       0xffffffffu /* DFR */
#define CLUSTER    0x0fffffffu
#define ESR_SENT   0x20u /* an illegal vector */
#define LOWER      0x2a
#define MANY       200

static u32 x2_logical(u32 number) {
    return (number >> 4) << 16 | 1u << (number & 15);
}

static u32 send(u32 icr, u32 destination, u32 vector) {
    forget_counts();
    apic_send(icr | APIC_ASSERT | vector, destination);
    settle_everywhere();
    return who_got(vector, 1) | who_got(vector, 2) << 16;
}

static void physical(void) {
    u32 right = 0;
    for (u32 number = 0; number < cpus; number++) {
        right |= (send(0, number, VECTOR_IPI) == 1u << number) << number;
    }
    check("physical, to each by its ID", right, ALL);
    check("physical, to all", send(0, apic_is_x2() ? 0xffffffff : 0xff, VECTOR_IPI), ALL);
    check("physical, to an ID that none has", send(0, 0x6e, VECTOR_IPI), 0);
    check("the ICR is idle again", apic_read(APIC_ICR) & APIC_PENDING, 0);
}

static void shorthands(void) {
    check("self", send(APIC_SELF, 0, VECTOR_IPI), 1);
    check("all including self", send(ALL_SELF, 0, VECTOR_IPI), ALL);
    check("all excluding self", send(ALL_OTHERS, 0, VECTOR_IPI), OTHERS);
    check(
        "the destination field means nothing then", send(ALL_OTHERS, cpus - 1, VECTOR_IPI), OTHERS);
}

/* Whose turn it is to send. */
static void send_back(void) {
    apic_send(APIC_ASSERT | VECTOR_IPI, 0);
}

static void send_to_all_but_self(void) {
    apic_send(ALL_OTHERS | APIC_ASSERT | VECTOR_IPI, 0);
}

static void send_to_self(void) {
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
}

static void from_others(void) {
    forget_counts();
    for (u32 number = 1; number < cpus; number++) {
        run_on(number, send_back);
        settle_everywhere();
    }
    check("each other CPU sends to CPU 0", cpu[0].came[VECTOR_IPI], cpus - 1);
    forget_counts();
    run_on(cpus - 1, send_to_all_but_self);
    settle_everywhere();
    check("the last sends to all but itself", who_got(VECTOR_IPI, 1), ALL & ~(1u << (cpus - 1)));
    forget_counts();
    run_on(cpus - 1, send_to_self);
    settle_everywhere();
    check("and to itself", who_got(VECTOR_IPI, 1), 1u << (cpus - 1));
}

static void set_flat(void) {
    apic_write(APIC_DFR, FLAT);
    apic_write(APIC_LDR, 1u << (24 + (this_cpu() & 7)));
}

/* Two to a cluster. */
static void set_cluster(void) {
    apic_write(APIC_DFR, CLUSTER);
    apic_write(APIC_LDR, (this_cpu() >> 1) << 28 | 1u << (24 + (this_cpu() & 1)));
}

static void logical_by_page(void) {
    if (cpus > 8) {
        skip("logical, flat, each set of CPUs", "more CPUs than bits");
        return;
    }
    run_everywhere(set_flat);
    u32 wrong = 0;
    for (u32 set = 1; set <= ALL; set++) {
        wrong += send(LOGICAL, set, VECTOR_IPI) != set;
    }
    check("logical, flat, each set of CPUs", wrong, 0);
    check("logical, flat, none of the bits", send(LOGICAL, 0, VECTOR_IPI), 0);
    check("logical, flat, all bits", send(LOGICAL, 0xff, VECTOR_IPI), ALL);

    run_everywhere(set_cluster);
    wrong = 0;
    for (u32 number = 0; number < cpus; number++) {
        u32 cluster = number >> 1;
        u32 both = 3u << (cluster * 2) & ALL;
        wrong += send(LOGICAL, cluster << 4 | 1u << (number & 1), VECTOR_IPI) != 1u << number;
        wrong += send(LOGICAL, cluster << 4 | 3, VECTOR_IPI) != both;
    }
    check("logical, cluster, each alone, and both of each cluster", wrong, 0);
    check("logical, cluster, a cluster that is not there", send(LOGICAL, 0x7f, VECTOR_IPI), 0);
    excuse(on_tcg(), 0, "QEMU takes it for a cluster's number");
    check("logical, cluster, all", send(LOGICAL, 0xff, VECTOR_IPI), ALL);
    run_everywhere(set_flat);
}

static bool ldr_is_right(void) {
    return apic_read(APIC_LDR) == x2_logical(this_cpu());
}

static void logical_by_msr(void) {
    if (native() && apic_read(APIC_LDR) == 0) {
        skip("the LDRs follow the IDs", "Bochs has no LDR in x2APIC mode");
        return;
    }
    check("the LDRs follow the IDs", where(ldr_is_right), ALL);
    u32 wrong = 0;
    for (u32 set = 1; set <= ALL; set++) {
        wrong += send(LOGICAL, set, VECTOR_IPI) != set;
    }
    check("logical: each set of a cluster", wrong, 0);
    check("logical: a cluster that is not there", send(LOGICAL, 0x70001, VECTOR_IPI), 0);
    check("logical: all", send(LOGICAL, 0xffffffff, VECTOR_IPI), ALL);
}

static bool single(u32 set) {
    return set && !(set & (set - 1));
}

static void raise_priority(void) {
    apic_write(APIC_TPR, 0x40);
}

static void lower_priority(void) {
    apic_write(APIC_TPR, 0);
}

static void lowest_priority(void) {
    u32 all = apic_is_x2() ? ALL : 0xff;
    u32 right = 0;
    for (u32 turn = 0; turn < MANY / 10; turn++) {
        right += single(send(LOWEST | LOGICAL, all, VECTOR_IPI));
    }
    check("lowest priority goes to one of them", right, MANY / 10);
    u32 last = cpus - 1;
    u32 id = 1u << last;
    check("to the only one that is named", send(LOWEST | LOGICAL, id, VECTOR_IPI), id);
    for (u32 number = 0; number < last; number++) {
        run_on(number, raise_priority);
    }
    excuse(on_tcg(), 0, "QEMU takes the first, whatever its priority");
    check("to the one whose priority is lower than all others'",
        send(LOWEST | LOGICAL, all, VECTOR_IPI), id);
    for (u32 number = 0; number < last; number++) {
        run_on(number, lower_priority);
    }
    settle_everywhere();
}

static void hold(void) {
    cli();
    barrier(); /* CPU 0 sends */
    barrier(); /* it has sent */
    u32 seen = apic_bit(APIC_IRR, VECTOR_IPI);
    cpu[this_cpu()].came[0] = cpu[this_cpu()].came[VECTOR_IPI] == 0 && seen;
    barrier();
    sti();
    asm volatile("nop; nop");
}

static void send_while_held(void) {
    barrier();
    for (u32 turn = 0; turn < 3; turn++) {
        apic_send(ALL_OTHERS | APIC_ASSERT | VECTOR_IPI, 0);
    }
    apic_send(ALL_OTHERS | APIC_ASSERT | LOWER, 0);
    barrier();
    barrier();
}

static void held_back(void) {
    forget_counts();
    for (u32 number = 1; number < cpus; number++) {
        cpu_give(number, hold);
    }
    send_while_held();
    for (u32 number = 1; number < cpus; number++) {
        cpu_take(number);
    }
    check("with IF clear it waits in the IRR", who_got(0, 1) & OTHERS, OTHERS);
    check("three that wait are one", who_got(VECTOR_IPI, 1), OTHERS);
    check("a lower one comes too", who_got(LOWER, 1), OTHERS);
}

static void halt(void) {
    cli();
    barrier();
    asm volatile("sti; hlt" : : : "memory");
}

static void wakes(void) {
    forget_counts();
    u32 woken = 1;
    for (u32 turn = 0; turn < MANY / 10; turn++) {
        for (u32 number = 1; number < cpus; number++) {
            cpu_give(number, halt);
        }
        barrier();
        wait_ticks(turn * 300); /* before, while and after they go to sleep */
        apic_send(ALL_OTHERS | APIC_ASSERT | VECTOR_IPI, 0);
        for (u32 number = 1; number < cpus; number++) {
            woken |= reached(&cpu[number].done, cpu[number].given) << number;
        }
    }
    check("IPIs end HLT", woken, ALL);
    check("one each", who_got(VECTOR_IPI, MANY / 10), OTHERS);
}

static volatile u32 nmis;

static bool on_nmi(struct frame *frame) {
    (void)frame;
    __atomic_or_fetch(&nmis, 1u << this_cpu(), __ATOMIC_SEQ_CST);
    return true;
}

static void await_nmis(u32 want) {
    u64 start = rdtsc();
    while (nmis != want && rdtsc() - start < soon) {
        pause();
    }
}

/* Those that got one; `want` are waited for. */
static u32 nmis_of(u32 want) {
    await_nmis(want);
    settle_everywhere();
    return nmis;
}

static u32 send_nmi(u32 icr, u32 destination, u32 want) {
    nmis = 0;
    apic_send(icr | APIC_ASSERT | APIC_MODE_NMI, destination);
    return nmis_of(want);
}

static void clear_if(void) {
    cli();
    barrier();
    barrier();
}

static void non_maskable(void) {
    set_hook(NMI, on_nmi);
    u32 right = 0;
    for (u32 number = 0; number < cpus; number++) {
        right |= (send_nmi(0, number, 1u << number) == 1u << number) << number;
    }
    check("NMI, to each by its ID", right, ALL);
    check("NMI, to all excluding self", send_nmi(ALL_OTHERS, 0, OTHERS), OTHERS);
    nmis = 0;
    for (u32 number = 1; number < cpus; number++) {
        cpu_give(number, clear_if);
    }
    barrier();
    apic_send(ALL_OTHERS | APIC_ASSERT | APIC_MODE_NMI, 0);
    await_nmis(OTHERS);
    check("with IF clear too", nmis, OTHERS);
    barrier();
    for (u32 number = 1; number < cpus; number++) {
        cpu_take(number);
    }
    set_hook(NMI, NULL);
}

static void wait_for_nmi(void) {
    cli();
    barrier();
    while (!(nmis >> this_cpu() & 1)) {
        asm volatile("hlt"); /* IF is clear */
    }
}

static void nmi_wakes(void) {
    set_hook(NMI, on_nmi);
    nmis = 0;
    for (u32 number = 1; number < cpus; number++) {
        cpu_give(number, wait_for_nmi);
    }
    barrier();
    wait_ticks(200000);
    apic_send(ALL_OTHERS | APIC_ASSERT | APIC_MODE_NMI, 0);
    for (u32 number = 1; number < cpus; number++) {
        cpu_take(number);
    }
    check("an NMI ends HLT with IF clear", nmis, OTHERS);
    set_hook(NMI, NULL);
}

static void disable(void) {
    apic_write(APIC_SVR, VECTOR_SPURIOUS);
}

static void enable(void) {
    apic_enable();
    if (this_cpu()) {
        apic_write(APIC_LVT_LINT0, APIC_MASKED);
    }
}

static void disabled(void) {
    u32 last = cpus - 1;
    run_on(last, disable);
    excuse(native(), 1u << last, "Bochs and QEMU deliver it");
    check("an APIC that is switched off takes no IPI", send(0, last, VECTOR_IPI), 0);
    set_hook(NMI, on_nmi);
    check("but an NMI", send_nmi(0, last, 1u << last), 1u << last);
    set_hook(NMI, NULL);
    run_on(last, enable);
    check("on again it takes IPIs", send(0, last, VECTOR_IPI), 1u << last);
}

static u32 esr(void) {
    apic_write(APIC_ESR, 0);
    u32 value = apic_read(APIC_ESR);
    apic_write(APIC_ESR, 0);
    return value;
}

static void errors(void) {
    if (on_tcg()) {
        skip("errors", "QEMU delivers vectors below 16");
        return;
    }
    esr();
    check("the ESR is clear", esr(), 0);
    forget_counts();
    apic_send(APIC_ASSERT | 5, cpus - 1);
    settle_everywhere();
    excuse(native(), 0, "the engine's APIC does not note it");
    check("a vector below 16 is an error of the sender's", esr() & ESR_SENT, ESR_SENT);
    check("and the ESR is clear again", esr(), 0);
}

static void smi(void) {
    if (native()) {
        skip("an SMI goes nowhere", "the engine's firmware may have a handler");
        return;
    }
    u32 turns = cpu[cpus - 1].turns;
    apic_send(APIC_ASSERT | SMI, cpus - 1);
    wait_ticks(1000000);
    check("an SMI goes nowhere", cpu[cpus - 1].turns != turns, true);
}

static volatile u32 answered;

static bool answer(struct frame *frame) {
    (void)frame;
    apic_write(APIC_EOI, 0);
    answered++;
    if (this_cpu()) {
        apic_send(APIC_ASSERT | LOWER, 0);
    }
    return true;
}

/* Back and forth, as two CPUs that wait for each other. */
static void ping_pong(void) {
    set_hook(VECTOR_IPI, answer);
    set_hook(LOWER, answer);
    answered = 0;
    sti();
    u32 rounds = 0;
    for (; rounds < MANY; rounds++) {
        u32 before = answered;
        apic_send(APIC_ASSERT | VECTOR_IPI, cpus - 1);
        if (!reached(&answered, before + 2)) {
            break;
        }
    }
    cli();
    check("back and forth", rounds, MANY);
    count_here(VECTOR_IPI);
    count_here(LOWER);
}

/* Each sends to all, many times: none is lost where each waits for the answer of all. */
static volatile u32 acknowledged[CPUS_MAX];
static volatile u32 sender;

static bool acknowledge(struct frame *frame) {
    (void)frame;
    apic_write(APIC_EOI, 0);
    __atomic_add_fetch(&acknowledged[sender], 1, __ATOMIC_SEQ_CST);
    return true;
}

static void call_all(void) {
    for (u32 turn = 0; turn < MANY / 4; turn++) {
        u32 want = acknowledged[this_cpu()] + cpus - 1;
        sender = this_cpu();
        apic_send(ALL_OTHERS | APIC_ASSERT | VECTOR_IPI, 0);
        await(&acknowledged[this_cpu()], want, "a call to all is not answered");
    }
}

static void calls(void) {
    set_hook(VECTOR_IPI, acknowledge);
    sti();
    u32 wrong = 0;
    for (u32 number = 0; number < cpus; number++) {
        acknowledged[number] = 0;
        run_on(number, call_all);
        wrong += acknowledged[number] != (cpus - 1) * (MANY / 4);
    }
    cli();
    check("calls from each to all others", wrong, 0);
    count_here(VECTOR_IPI);
}

static void all(void) {
    count_here(VECTOR_IPI);
    count_here(LOWER);
    physical();
    shorthands();
    from_others();
    if (apic_is_x2()) {
        logical_by_msr();
    } else {
        logical_by_page();
    }
    lowest_priority();
    held_back();
    wakes();
    non_maskable();
    nmi_wakes();
    disabled();
    errors();
    smi();
    ping_pong();
    calls();
}

void test_ipi(void) {
    all();
}

void test_x2_ipi(void) {
    if (apic_is_x2()) {
        all();
    } else {
        skip("all", "no x2APIC");
    }
}
