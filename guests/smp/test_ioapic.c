/* The 8254's line to each CPU by the I/O APIC (82093AA data sheet), and a level that one CPU ends for another. */
#include "chips.h"
#include "suite.h"

#define IOAPIC      0xfec00000u
#define PIN_8254    2
#define PIN_UART    4
#define VECTOR_LINE 0x35
#define RTE_LOWEST  0x100u
#define RTE_LOGICAL 0x800u
#define RTE_REMOTE  0x4000u
#define RTE_LEVEL   0x8000u
#define RTE_MASKED  0x10000u
#define COM1        0x3f8
#define TICKS       3
#define MILLISECOND (PIT_HZ / 1000)

static u32 ioapic_read(u32 index) {
    *(volatile u32 *)(word)IOAPIC = index;
    return *(volatile u32 *)(word)(IOAPIC + 0x10);
}

static void ioapic_write(u32 index, u32 value) {
    *(volatile u32 *)(word)IOAPIC = index;
    *(volatile u32 *)(word)(IOAPIC + 0x10) = value;
}

static void route(u32 pin, u32 low, u32 destination) {
    ioapic_write(0x10 + 2 * pin, RTE_MASKED);
    ioapic_write(0x11 + 2 * pin, destination << 24);
    ioapic_write(0x10 + 2 * pin, low);
}

static u32 sum(void) {
    u32 found = 0;
    for (u32 number = 0; number < cpus; number++) {
        found += cpu[number].came[VECTOR_LINE];
    }
    return found;
}

/* Some ticks of the 8254, one at a time, each of which `each` CPUs get; a bit for each CPU that got one. */
static u32 ticks_to(u32 low, u32 destination, u32 each) {
    forget_counts();
    route(PIN_8254, low | VECTOR_LINE, destination);
    for (u32 tick = 1; tick <= TICKS; tick++) {
        sti();
        pit_once(MILLISECOND);
        u64 start = rdtsc();
        while (sum() < tick * each && rdtsc() - start < soon) {
            pause();
        }
        settle_everywhere();
    }
    route(PIN_8254, RTE_MASKED, 0);
    pit_stop();
    settle_everywhere();
    return ALL & ~who_got(VECTOR_LINE, 0);
}

static void set_flat(void) {
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 1u << (24 + (this_cpu() & 7)));
}

static void edges(void) {
    u32 right = 0;
    for (u32 number = 0; number < cpus; number++) {
        right |= (ticks_to(0, number, 1) == 1u << number && sum() == TICKS) << number;
    }
    check("the 8254 to each by its ID", right, ALL);
    run_everywhere(set_flat);
    right = 0;
    for (u32 number = 0; number < cpus; number++) {
        u32 set = 1u << number;
        right |= (ticks_to(RTE_LOGICAL, set, 1) == set && sum() == TICKS) << number;
    }
    check("to each by its logical ID", right, ALL);
    check("to all by the logical ID", ticks_to(RTE_LOGICAL, ALL, cpus), ALL);
    check("each tick to each", who_got(VECTOR_LINE, TICKS), ALL);
    ticks_to(RTE_LOGICAL | RTE_LOWEST, ALL, 1);
    check("lowest priority: none is lost, none comes twice", sum(), TICKS);
    check("lowest priority to one", ticks_to(RTE_LOGICAL | RTE_LOWEST, 1u << (cpus - 1), 1),
        1u << (cpus - 1));
}

static volatile u32 levels;

/* Reading IIR lowers the line, EOI by this CPU lets the pin send again. */
static bool on_level(struct frame *frame) {
    (void)frame;
    cpu[this_cpu()].came[VECTOR_LINE]++;
    if (levels++ == 0) {
        apic_write(APIC_EOI, 0); /* the line is still up: it comes again */
        return true;
    }
    inb(COM1 + 2);
    apic_write(APIC_EOI, 0);
    return true;
}

static void level(void) {
    u32 last = cpus - 1;
    levels = 0;
    forget_counts();
    set_hook(VECTOR_LINE, on_level);
    route(PIN_UART, RTE_LEVEL | VECTOR_LINE, last);
    outb(COM1 + 4, 0x0b); /* OUT2 lets the interrupt through */
    outb(COM1 + 1, 2); /* the transmitter is empty, and says so */
    reached(&levels, 2);
    wait_ticks(200000);
    outb(COM1 + 1, 0);
    settle_everywhere();
    excuse(native(), 1, "Bochs does not look at the line at EOI");
    check("a level comes to the CPU again until it is gone", cpu[last].came[VECTOR_LINE], 2);
    check("its EOI ends it", ioapic_read(0x10 + 2 * PIN_UART) & RTE_REMOTE, 0);
    route(PIN_UART, RTE_MASKED, 0);
    outb(COM1 + 4, 3);
}

/* All write and read registers of their own through the one window, a lock around each pair. */
static u32 lock;
static volatile u32 wrong;

static void take(void) {
    while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST)) {
        pause();
    }
}

static void use_window(void) {
    u32 pin = 8 + this_cpu();
    barrier();
    for (u32 turn = 0; turn < 50; turn++) {
        take();
        ioapic_write(0x10 + 2 * pin, RTE_MASKED | turn);
        __atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
        take();
        u32 got = ioapic_read(0x10 + 2 * pin);
        __atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
        if ((got & 0x100ff) != (RTE_MASKED | turn)) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
    }
}

void test_ioapic(void) {
    pic_mask(0xffff);
    count_here(VECTOR_LINE);
    edges();
    level();
    run_everywhere(use_window);
    check("all use its window in turn", wrong, 0);
}
