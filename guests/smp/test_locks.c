/* Locks that spin: each CPU comes to its end, whoever holds the lock, with PAUSE and without. */
#include "suite.h"

#define TURNS 300

static volatile u32 next, serving; /* a ticket lock: in the order of arrival */
static volatile u32 guarded, inside, crowded;
static u32 flag;
static volatile bool with_pause;

static void critical(void) {
    if (__atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) != 1) {
        crowded++;
    }
    guarded = guarded + 1;
    __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
}

static void ticket(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 mine = __atomic_fetch_add(&next, 1, __ATOMIC_SEQ_CST);
        while (serving != mine) {
            if (with_pause) {
                pause();
            }
        }
        critical();
        serving = mine + 1;
    }
}

static void exchange(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        while (__atomic_exchange_n(&flag, 1, __ATOMIC_SEQ_CST)) {
            pause();
        }
        critical();
        __atomic_store_n(&flag, 0, __ATOMIC_SEQ_CST);
    }
}

static void start(void) {
    next = serving = guarded = inside = crowded = 0;
}

/* The holder sleeps in the middle: the others spin until its timer wakes it. */
static void sleeper(void) {
    cli();
    apic_write(APIC_DCR, APIC_DIVIDE_1);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    barrier();
    for (u32 turn = 0; turn < 5; turn++) {
        u32 mine = __atomic_fetch_add(&next, 1, __ATOMIC_SEQ_CST);
        while (serving != mine) {
            pause();
        }
        apic_write(APIC_INITIAL_COUNT, 50000);
        asm volatile("sti; hlt; cli" : : : "memory");
        critical();
        serving = mine + 1;
    }
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

void test_locks(void) {
    start();
    with_pause = true;
    run_everywhere(ticket);
    check("a ticket lock with PAUSE", guarded, TURNS * cpus);
    check("never two inside", crowded, 0);
    start();
    with_pause = false;
    run_everywhere(ticket);
    check("a ticket lock without PAUSE", guarded, TURNS * cpus);
    start();
    run_everywhere(exchange);
    check("a lock by XCHG", guarded, TURNS * cpus);
    check("nor here", crowded, 0);
    start();
    count_here(VECTOR_TIMER);
    run_everywhere(sleeper);
    check("a holder that sleeps", guarded, 5 * cpus);
}
