/* TLB shoot-down: CPU 0 changes a page-table entry and asks the others by IPI to forget what they hold of it (SDM Vol. 3A,
 * "Propagation of Paging-Structure Changes to Multiple Processors"). */
#include "suite.h"
#include "window.h"

#define ROUNDS 60

static volatile u32 acknowledged;
static volatile u64 seen[CPUS_MAX];
static volatile bool whole; /* by CR3 instead of INVLPG */

static bool forget(struct frame *frame) {
    (void)frame;
    if (whole) {
        write_cr3(read_cr3());
    } else {
        invlpg(PAGE_AT(0));
    }
    apic_write(APIC_EOI, 0);
    __atomic_add_fetch(&acknowledged, 1, __ATOMIC_SEQ_CST);
    return true;
}

static void shoot(void) {
    acknowledged = 0;
    invlpg(PAGE_AT(0));
    apic_send(0xc0000 | APIC_ASSERT | VECTOR_IPI, 0); /* all excluding self */
    await(&acknowledged, cpus - 1, "a shoot-down is not acknowledged");
}

static void look(void) {
    seen[this_cpu()] = *PAGE_AT(0);
}

static void write_own(void) {
    PAGE_AT(0)[16 + this_cpu()] = 0x1000 + this_cpu();
}

static u32 rounds(void) {
    u32 wrong = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        window_ptes[0] = PTE_FOR(round % FRAMES);
        shoot();
        run_everywhere(look);
        for (u32 number = 0; number < cpus; number++) {
            wrong += seen[number] != round % FRAMES;
        }
    }
    return wrong;
}

static volatile u32 faults;

static bool on_fault(struct frame *frame) {
    (void)frame;
    __atomic_or_fetch(&faults, 1u << this_cpu(), __ATOMIC_SEQ_CST);
    frame->ip += 3; /* past the store of try_write() */
    return true;
}

/* The store and one NOP are three bytes. */
static void try_write(void) {
    asm volatile("movb %%al, (%%rdi); nop" : : "D"(PAGE_AT(0) + 8), "a"(7) : "memory");
}

static void protect(void) {
    write_cr0(read_cr0() | CR0_WP);
}

/* All write while CPU 0 moves the page: each store lands in the frame before or in the one behind. */
static volatile bool stop;

static void write_on(void) {
    sti();
    barrier();
    while (!stop) {
        PAGE_AT(0)[32 + this_cpu()]++;
        pause();
    }
}

static void moves_under_load(void) {
    stop = false;
    for (u32 frame = 0; frame < FRAMES; frame++) {
        for (u32 number = 0; number < cpus; number++) {
            ((volatile u32 *)window_frames[frame])[32 + number] = 0;
        }
    }
    for (u32 number = 1; number < cpus; number++) {
        cpu_give(number, write_on);
    }
    barrier();
    u32 wrong = 0;
    for (u32 round = 0; round < ROUNDS; round++) {
        window_ptes[0] = PTE_FOR(round % FRAMES);
        shoot();
        volatile u32 *old = (volatile u32 *)window_frames[(round + FRAMES - 1) % FRAMES];
        u32 before = 0, after = 0;
        for (u32 number = 1; number < cpus; number++) {
            before += old[32 + number];
        }
        wait_ticks(5000);
        for (u32 number = 1; number < cpus; number++) {
            after += old[32 + number];
        }
        wrong += before != after;
    }
    stop = true;
    for (u32 number = 1; number < cpus; number++) {
        cpu_take(number);
    }
    check("after a shoot-down nothing is written to the old page", wrong, 0);
}

void test_tlb(void) {
    window_init();
    set_hook(VECTOR_IPI, forget);
    run_everywhere(look);
    check("by INVLPG all see the new page", rounds(), 0);
    whole = true;
    check("by CR3 too", rounds(), 0);
    whole = false;
    window_ptes[0] = PTE_FOR(3);
    shoot();
    run_everywhere(write_own);
    u32 wrong = 0;
    for (u32 number = 0; number < cpus; number++) {
        wrong += ((volatile u32 *)window_frames[3])[16 + number] != 0x1000 + number;
    }
    check("and write to it", wrong, 0);

    set_hook(PF, on_fault);
    window_ptes[0] = PTE_FOR(3) & ~(u64)PTE_W;
    shoot();
    run_everywhere(protect);
    run_everywhere(try_write);
    check("a page that may only be read faults on all", faults, ALL);
    window_ptes[0] = 0;
    shoot();
    faults = 0;
    run_everywhere(try_write);
    check("a page that is gone faults on all", faults, ALL);
    window_ptes[0] = PTE_FOR(5);
    faults = 0;
    run_everywhere(try_write);
    check("one that is new needs no shoot-down", faults, 0);
    set_hook(PF, NULL);
    shoot();
    moves_under_load();
    count_here(VECTOR_IPI);
}
