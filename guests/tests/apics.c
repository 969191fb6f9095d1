/* The local APIC, once by MMIO and once by MSRs (SDM Vol. 3A, "Advanced Programmable Interrupt Controller"). Not
 * in real mode, which does not reach FEE00000H. */
#include "test.h"

#if PAGED
#include "apic.h"
#include "chips.h"

#define LOWER          0x2a /* a vector of a lower priority class than VECTOR_IPI's */
#define ONE_SHOT_COUNT 20000
#define PERIOD         400000 /* of which a handler takes a tenth, where one monitor runs in another */

static volatile u32 count, order, served, depth, deepest;

static bool note(struct frame *frame) {
    count++;
    order = order << 8 | frame->vector;
    served = apic_bit(APIC_ISR, frame->vector);
    apic_write(APIC_EOI, 0);
    return true;
}

static void restart(void) {
    cli();
    count = order = served = 0;
}

static void settle(void) {
    sti();
    wait_ticks(20000);
    cli();
}

static void registers(void) {
    u32 version = apic_read(APIC_VERSION);
    check_true(
        "the version is an integrated APIC's", (version & 0xff) >= 0x10 && (version & 0xff) < 0x20);
    check_true("it has LVT entries enough", (version >> 16 & 0xff) >= 3);
    check("the id is CPUID's", apic_id() & 0xff, cpuid(1, 0).ebx >> 24);
    apic_write(APIC_TPR, 0x55);
    check("TPR round trip", apic_read(APIC_TPR), 0x55);
    check("PPR follows TPR", apic_read(APIC_PPR), 0x55);
#if LONG64
    word cr8;
    asm volatile("mov %%cr8, %0" : "=r"(cr8));
    check("CR8 is TPR's class", cr8, 5);
    asm volatile("mov %0, %%cr8" : : "r"(3ull));
    check("TPR is CR8's class", apic_read(APIC_TPR), 0x30);
#endif
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | APIC_PERIODIC | VECTOR_TIMER);
    check("LVT timer round trip", apic_read(APIC_LVT_TIMER),
        APIC_MASKED | APIC_PERIODIC | VECTOR_TIMER);
    apic_write(APIC_SVR, VECTOR_SPURIOUS);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    excuse(on_tcg(), 0, "QEMU's APIC keeps an LVT unmasked while it is disabled");
    check("a disabled APIC keeps its LVT masked", apic_read(APIC_LVT_TIMER) & APIC_MASKED,
        APIC_MASKED);
    apic_enable();
}

static void self_ipi(void) {
    restart();
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    check_true("a self-IPI waits in the IRR", apic_bit(APIC_IRR, VECTOR_IPI));
    settle();
    check("and arrives", order, VECTOR_IPI);
    check("and is in service inside", served, 1);
    check_true("and is gone after EOI",
        !apic_bit(APIC_ISR, VECTOR_IPI) && !apic_bit(APIC_IRR, VECTOR_IPI));

    restart();
    apic_send(APIC_ASSERT | VECTOR_IPI, apic_id());
    settle();
    check("an IPI to the own id arrives", order, VECTOR_IPI);
    if (apic_is_x2()) {
        restart();
        apic_write(APIC_SELF_IPI, VECTOR_IPI);
        settle();
        check("the SELF IPI register works", order, VECTOR_IPI);
    }

    restart();
    apic_send(APIC_SELF | APIC_ASSERT | LOWER, 0);
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    settle();
    check("the higher vector comes first", order, VECTOR_IPI << 8 | LOWER);

    restart();
    apic_write(APIC_TPR, 0x30);
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    settle();
    check("TPR holds its own class back", count, 0);
    apic_write(APIC_TPR, 0x20);
    settle();
    check("and lets a higher class through", order, VECTOR_IPI);
    apic_write(APIC_TPR, 0);
}

#if LONG64
static bool raises; /* the handler of VECTOR_IPI leaves with TPR at LOWER's class */

static void set_cr8(word class) {
    asm volatile("mov %0, %%cr8" : : "r"(class) : "memory");
}

static bool note_and_raise(struct frame *frame) {
    if (raises) {
        set_cr8(LOWER >> 4);
    }
    return note(frame);
}

/* The task priority by MOV to CR8, which on some CPUs exits only where it lets something through. */
static void priority_by_cr8(void) {
    restart();
    set_cr8(VECTOR_IPI >> 4);
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    settle();
    check("CR8 holds its own class back", count, 0);
    check("PPR follows CR8", apic_read(APIC_PPR), VECTOR_IPI & 0xf0);
    asm volatile("sti; mov %0, %%cr8; nop; cli" : : "r"((word)(VECTOR_IPI >> 4) - 1) : "memory");
    check("a lower CR8 lets it through at once", order, VECTOR_IPI);

    restart();
    set_cr8(0);
    raises = true;
    set_hook(VECTOR_IPI, note_and_raise);
    apic_send(APIC_SELF | APIC_ASSERT | LOWER, 0);
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    settle();
    check("CR8 in a handler holds back what waits for EOI", order, VECTOR_IPI);
    asm volatile("sti; mov %0, %%cr8; nop; cli" : : "r"((word)0) : "memory");
    check("until it is lowered", order, VECTOR_IPI << 8 | LOWER);
    raises = false;
    set_hook(VECTOR_IPI, note);

    restart();
    set_cr8(VECTOR_IPI >> 4);
    apic_send(APIC_SELF | APIC_ASSERT | VECTOR_IPI, 0);
    apic_write(APIC_TPR, 0);
    settle();
    check("TPR lets through what CR8 held back", order, VECTOR_IPI);

    restart();
    apic_write(APIC_TPR, 0xf0);
    set_cr8(0);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_INITIAL_COUNT, ONE_SHOT_COUNT * 4);
    asm volatile("sti; hlt; cli" : : : "memory");
    check("the timer ends HLT after CR8 was lowered", order, VECTOR_TIMER);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}
#endif

static void timer(void) {
    restart();
    apic_write(APIC_DCR, APIC_DIVIDE_1);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | VECTOR_TIMER);
    apic_write(APIC_INITIAL_COUNT, 0xffffffff);
    u32 first = apic_read(APIC_CURRENT_COUNT);
    wait_ticks(10000);
    u32 second = apic_read(APIC_CURRENT_COUNT);
    check_true("the timer counts down", second < first && first > 0xf0000000);
    apic_write(APIC_INITIAL_COUNT, 0);
    check("a zero count stops it", apic_read(APIC_CURRENT_COUNT), 0);

    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    sti();
    apic_write(APIC_INITIAL_COUNT, ONE_SHOT_COUNT);
    wait_for(&count, 1);
    wait_ticks(100000);
    cli();
    check("one-shot fires once", order, VECTOR_TIMER);
    check("and ends at zero", apic_read(APIC_CURRENT_COUNT), 0);

    restart();
    apic_write(APIC_LVT_TIMER, APIC_PERIODIC | VECTOR_TIMER);
    sti();
    apic_write(APIC_INITIAL_COUNT, PERIOD);
    bool arrived = wait_for(&count, 3);
    cli();
    apic_write(APIC_INITIAL_COUNT, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    settle();
    check_true("periodic fires again and again", arrived);

    restart();
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER);
    apic_write(APIC_INITIAL_COUNT, ONE_SHOT_COUNT * 4);
    asm volatile("sti; hlt; cli" : : : "memory");
    check("the timer ends HLT", count, 1);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static void deadline(void) {
    static const char *const names[] = {"a TSC deadline fires once", "and reads zero then",
        "a past deadline fires at once", "a deadline reads back after TSC_ADJUST has moved the TSC",
        "and after the TSC was written", "a deadline of 64 bits reads back", "and has not come",
        "a TSC that jumps past a deadline makes it due", "a TSC that jumps back puts it off"};
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_TSC_DEADLINE)) {
        for (u32 name = 0; name < COUNT(names); name++) {
            skip(names[name], "no TSC deadline");
        }
        return;
    }
    restart();
    apic_write(APIC_LVT_TIMER, APIC_DEADLINE | VECTOR_TIMER);
    asm volatile("mfence" : : : "memory");
    u64 when = rdtsc() + 50000;
    wrmsr(IA32_TSC_DEADLINE, when);
    sti();
    wait_for(&count, 1);
    u64 now = rdtsc();
    wait_ticks(100000);
    cli();
    check(names[0], order << 8 | (now >= when), VECTOR_TIMER << 8 | 1);
    excuse(true, when, "Bochs keeps the deadline after it has fired");
    check(names[1], rdmsr(IA32_TSC_DEADLINE), 0);
    restart();
    wrmsr(IA32_TSC_DEADLINE, 1);
    settle();
    check(names[2], order, VECTOR_TIMER);

    if (!(cpuid_leaf(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST)) {
        for (u32 name = 3; name < COUNT(names); name++) {
            skip(names[name], "no TSC_ADJUST");
        }
        apic_write(APIC_LVT_TIMER, APIC_MASKED);
        return;
    }
    restart();
    u64 adjust = rdmsr(IA32_TSC_ADJUST);
    when = rdtsc() + (1ull << 36);
    wrmsr(IA32_TSC_DEADLINE, when);
    wrmsr(IA32_TSC_ADJUST, adjust + 0x100000);
    check(names[3], rdmsr(IA32_TSC_DEADLINE) - when, 0);
    wrmsr(IA32_TIME_STAMP_COUNTER, rdtsc() + 0x100000);
    check(names[4], rdmsr(IA32_TSC_DEADLINE) - when, 0);
    wrmsr(IA32_TSC_DEADLINE, (1ull << 63) + 12345);
    check(names[5], rdmsr(IA32_TSC_DEADLINE), (1ull << 63) + 12345);
    settle();
    check(names[6], count, 0);
    wrmsr(IA32_TSC_DEADLINE, rdtsc() + 0x40000000);
    wrmsr(IA32_TSC_ADJUST, rdmsr(IA32_TSC_ADJUST) + 0x50000000);
    settle();
    excuse(native(), 0, "Bochs goes by the TSC of the time when the deadline was written");
    check(names[7], order, VECTOR_TIMER);
    restart();
    wrmsr(IA32_TSC_DEADLINE, rdtsc() + 30000);
    wrmsr(IA32_TSC_ADJUST, rdmsr(IA32_TSC_ADJUST) - 0x50000000);
    wait_ticks(100000);
    settle();
    excuse(
        native(), VECTOR_TIMER, "Bochs goes by the TSC of the time when the deadline was written");
    check(names[8], order, 0);
    wrmsr(IA32_TSC_DEADLINE, 0);
    wrmsr(IA32_TSC_ADJUST, adjust);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
}

static bool nmi(struct frame *frame) {
    (void)frame;
    count++;
    depth++;
    deepest = depth > deepest ? depth : deepest;
    if (count == 1) {
        apic_send(APIC_ASSERT | APIC_MODE_NMI, apic_id());
        apic_send(APIC_ASSERT | APIC_MODE_NMI, apic_id());
        wait_ticks(5000); /* one of them waits for this handler's IRET */
    }
    depth--;
    return true;
}

static void non_maskable(void) {
    restart();
    deepest = 0;
    set_hook(NMI, nmi);
    apic_send(APIC_ASSERT | APIC_MODE_NMI, apic_id());
    wait_ticks(5000);
    check_true("an NMI comes with IF clear", count);
    check("NMIs are blocked until IRET, one of two is kept", count << 8 | deepest, 0x201);
}

static void with_8259(void) {
    pit_start_counting(PIT_HZ / 1000);
    sti();
    bool arrived = wait_for(&pit_ticks, 2);
    cli();
    pit_stop_counting();
    check_true("LINT0 as ExtINT passes the 8259 on", arrived);
}

static void all(void) {
    set_hook(VECTOR_IPI, note);
    set_hook(VECTOR_TIMER, note);
    set_hook(LOWER, note);
    apic_enable();
    registers();
    self_ipi();
    timer();
#if LONG64
    priority_by_cr8();
#endif
    deadline();
    non_maskable();
    with_8259();
    set_hook(NMI, NULL); /* not before: an NMI may come late */
}

/* The registers' page: 4 bytes of every 16, and where IA32_APIC_BASE says. */
static void page(void) {
    volatile u32 *version = (volatile u32 *)(word)(0xfee00000 + APIC_VERSION);
    excuse(native(), 3ull * version[0], "Bochs and QEMU have the register four times");
    check("the bytes behind a register are zero", (u64)version[1] + version[2] + version[3], 0);
    if (on_tcg()) {
        skip("the page moves with APIC_BASE", "QEMU's does not move");
        skip("what was there comes back", "QEMU's does not move");
        return;
    }
    u64 base = rdmsr(IA32_APIC_BASE);
    u32 want = version[0];
    volatile u32 *ram = (volatile u32 *)(word)(0xf00000 + APIC_VERSION);
    *ram = 0x5a5a5a5a;
    wrmsr(IA32_APIC_BASE, (base & 0xfff) | 0xf00000);
    u32 got = *ram;
    *(volatile u32 *)(word)(0xf00000 + APIC_TPR) = 0x44;
    wrmsr(IA32_APIC_BASE, base);
    check("the page moves with APIC_BASE", got, want);
    check("what was there comes back", *ram, 0x5a5a5a5a);
    check("a register was written there", apic_read(APIC_TPR), 0x44);
    apic_write(APIC_TPR, 0);
}

void test_xapic(void) {
    if (!(cpuid(1, 0).edx & CPUID_1_EDX_APIC)) {
        skip("all", "no APIC");
        return;
    }
    if (apic_is_x2()) {
        skip("all", "already in x2APIC mode");
        return;
    }
    all();
    page();
}

static void refused(const char *name, u32 msr, u64 value) {
    ATTEMPT("wrmsr", : : "c"(msr), "a"((u32)value), "d"((u32)(value >> 32)));
    check_trap(name, GP, 0);
}

void test_x2apic(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC)) {
        skip("all", "no x2APIC");
        return;
    }
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | X2APIC_ENABLE);
    check("APIC_BASE says x2APIC", rdmsr(IA32_APIC_BASE) & 0xfff, 0xd00);
    all();
    refused("the id cannot be written", 0x802, 0);
    refused("a reserved MSR cannot be written", 0x804, 0);
    ATTEMPT("rdmsr", : : "c"(0x80b) : "eax", "edx");
    check_trap("EOI cannot be read", GP, 0);
    ATTEMPT("rdmsr", : : "c"(0x80e) : "eax", "edx");
    check_trap("there is no DFR", GP, 0);
    refused("EOI takes zero only", 0x80b, 1);
    refused("TPR refuses reserved bits", 0x808, 0x100);
    excuse(true, NO_TRAP, "Bochs does not check LVT writes");
    refused("LVT timer refuses reserved bits", 0x832, 1u << 31);
    refused("APIC_BASE refuses a step back to xAPIC", IA32_APIC_BASE,
        rdmsr(IA32_APIC_BASE) & ~(u64)X2APIC_ENABLE);
    excuse(true, 0, "Bochs has no LDR in x2APIC mode");
    check("the LDR follows the id", apic_read(APIC_LDR),
        (apic_id() >> 4) << 16 | 1u << (apic_id() & 15));
}
#else
void test_xapic(void) {
    skip("all", "out of reach in real mode");
}

void test_x2apic(void) {
    skip("all", "the local APIC's timer and IPIs are the other modes' subject");
}
#endif
