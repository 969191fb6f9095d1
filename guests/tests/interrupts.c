/* External interrupts through the 8259 pair, the interrupt shadow, HLT (SDM Vol. 3A, "Interrupt and Exception
 * Handling"; Vol. 2A, "HLT", "STI"). */
#include "chips.h"
#include "test.h"

#define PIT_1KHZ (PIT_HZ / 1000)
#define COM1_IER 0x3f9
#define COM1_IIR 0x3fa
#define COM1_MCR 0x3fc

static volatile u32 count, in_service, depth, deepest;
static volatile word interrupted_ip;

static bool note(struct frame *frame) {
    interrupted_ip = frame->ip;
    count++;
    in_service = pic_read(PIC_MASTER, PIC_READ_ISR);
    pic_eoi();
    return true;
}

/* Makes IRQ0 pending with interrupts off: an edge of the 8254 that the master 8259 holds in its IRR. */
static bool make_pending(void) {
    cli();
    count = 0;
    pic_mask(0xfffe);
    pit_once(20);
    for (u32 turn = 0; turn < 1000000; turn++) {
        if (pic_read(PIC_MASTER, PIC_READ_IRR) & 1) {
            return true;
        }
    }
    return false;
}

static void ticks(void) {
    pit_start_counting(PIT_1KHZ);
    sti();
    bool arrived = wait_for(&pit_ticks, 5);
    cli();
    pit_stop_counting();
    check_true("the 8254 interrupts through the 8259", arrived);
    count = 0;
    set_hook(VECTOR_PIC, note);
    check_true("a pending interrupt shows in the IRR", make_pending());
    check("and waits while IF is clear", count, 0);
    pic_mask(0xffff);
    sti();
    wait_ticks(10000);
    check("and waits while it is masked", count, 0);
    pic_mask(0xfffe);
    wait_ticks(10000);
    cli();
    check("and comes when it may", count, 1);
    check("and is in service until EOI", in_service, 1);
    check("and then is not", pic_read(PIC_MASTER, PIC_READ_ISR), 0);
    sti();
    wait_ticks(10000);
    cli();
    check("one edge is one interrupt", count, 1);
}

static bool without_eoi(struct frame *frame) {
    (void)frame;
    count++;
    depth++;
    deepest = depth > deepest ? depth : deepest;
    if (count == 1) {
        pit_once(20);
        sti();
        wait_ticks(300000); /* the second edge comes in this time and must wait for EOI */
        cli();
    }
    depth--;
    pic_eoi();
    return true;
}

static void end_of_interrupt(void) {
    set_hook(VECTOR_PIC, without_eoi);
    deepest = 0;
    make_pending();
    sti();
    wait_for(&count, 2);
    cli();
    check("the next waits for EOI", count << 8 | deepest, 0x201);
    set_hook(VECTOR_PIC, note);
}

/* Where a pending interrupt comes after these instructions, with IF clear before them. */
#define SHADOW(name, instructions, behind)                                                         \
    do {                                                                                           \
        word want_;                                                                                \
        make_pending();                                                                            \
        asm volatile(ADDRESS_OF("2f", "%0") instructions behind                                    \
                     : "=&S"(want_)                                                                \
                     :                                                                             \
                     : "eax", REG_BX, "ecx", "edx", "memory");                                     \
        wait_ticks(1000);                                                                          \
        cli();                                                                                     \
        check(name, interrupted_ip, want_);                                                        \
    } while (0)

static void shadow(void) {
    SHADOW("STI shadows one instruction", "sti; incl %%eax; 2: nop; nop", "");
    SHADOW("STI shadows CPUID", "xorl %%eax, %%eax; sti; cpuid; 2: nop; nop", "");
    SHADOW("STI shadows IN", "movl $0x3ff, %%edx; sti; inb %%dx, %%al; 2: nop; nop", "");
    SHADOW("STI shadows OUT", "movl $0x3ff, %%edx; sti; outb %%al, %%dx; 2: nop; nop", "");
    SHADOW("STI shadows RDMSR", "movl $0x10, %%ecx; sti; rdmsr; 2: nop; nop", "");
    SHADOW("STI and HLT wake at once", "sti; hlt; 2: nop; nop", "");
    SHADOW("POPF shadows nothing", "pushf; orl $0x200, (%%" REG_SP "); popf; 2: nop; nop", "");
    make_pending();
    asm volatile("sti; cli; nop; nop" : : : "memory");
    check("STI and CLI let nothing in", count, 0);
    sti();
    wait_ticks(10000);
    cli();
    check("and nothing is lost", count, 1);
}

/* Ticks may come in a burst where a host was busy, but no HLT may end without one. */
static void halt(void) {
    u32 without = 0;
    pit_start_counting(PIT_1KHZ);
    for (u32 turn = 0; turn < 10; turn++) {
        u32 before = pit_ticks;
        asm volatile("sti; hlt; cli" : : : "memory");
        without += pit_ticks == before;
    }
    pit_stop_counting();
    check("HLT ends with an interrupt and not before", without, 0);
}

static bool slave(struct frame *frame) {
    (void)frame;
    count++;
    rtc_read(0x0c);
    outb(PIC_SLAVE, PIC_EOI);
    pic_eoi();
    return true;
}

static void real_time_clock(void) {
    set_hook(VECTOR_PIC + 8, slave);
    count = 0;
    u8 a = rtc_read(0x0a), b = rtc_read(0x0b);
    rtc_write(0x0a, 0x26); /* 1024 Hz */
    rtc_write(0x0b, b | 0x40);
    rtc_read(0x0c);
    pic_mask(0xfefb);
    sti();
    bool arrived = wait_for(&count, 3);
    cli();
    pic_mask(0xffff);
    rtc_write(0x0b, b & 0x8f);
    rtc_write(0x0a, a);
    rtc_read(0x0c);
    set_hook(VECTOR_PIC + 8, NULL);
    check_true("the MC146818 interrupts through the slave", arrived);
}

static volatile u32 identification;

static bool transmitter(struct frame *frame) {
    (void)frame;
    identification = inb(COM1_IIR) & 0x0f;
    outb(COM1_IER, 0);
    count++;
    pic_eoi();
    return true;
}

static void uart(void) {
    set_hook(VECTOR_PIC + 4, transmitter);
    count = 0;
    outb(COM1_MCR, 0x0b); /* OUT2 lets the line out */
    pic_mask(0xffef);
    sti();
    outb(COM1_IER, 2);
    bool arrived = wait_for(&count, 1);
    cli();
    outb(COM1_IER, 0);
    outb(COM1_MCR, 0x03);
    pic_mask(0xffff);
    set_hook(VECTOR_PIC + 4, NULL);
    check_true("the 16550 interrupts", arrived);
    check("and says that its transmitter is empty", identification, 2);
}

void test_interrupts(void) {
    ticks();
    end_of_interrupt();
    shadow();
    set_hook(VECTOR_PIC, NULL);
    pit_stop();
    halt();
    real_time_clock();
    uart();
}
