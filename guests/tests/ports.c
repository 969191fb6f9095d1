/* IN and OUT, and the chips behind them (SDM Vol. 2A, "IN", "OUT"). */
#include "chips.h"
#include "test.h"

#define SCRATCH 0x3ff /* the 16550's scratch register */
#define NOBODY  0x5600 /* no device anywhere */

static void widths(void) {
    outb(SCRATCH, 0xa5);
    u32 eax = 0x12345678;
    asm volatile("inb %%dx, %%al" : "+a"(eax) : "d"(SCRATCH));
    check("IN AL keeps the rest of EAX", eax, 0x123456a5);
    eax = 0x12345678;
    asm volatile("inw %%dx, %%ax" : "+a"(eax) : "d"(NOBODY));
    check("IN AX keeps the upper half of EAX", eax, 0x1234ffff);
    word rax = (word)0x8765432112345678ull;
    asm volatile("inl %%dx, %%eax" : "+a"(rax) : "d"(NOBODY));
    check("IN EAX of an unclaimed port is all ones", rax, 0xffffffff);
    check("IN AL of an unclaimed port is all ones", inb(NOBODY), 0xff);
    outb(NOBODY, 1);
    outw(NOBODY, 1);
    outl(NOBODY, 1);
    check("OUT to an unclaimed port changes nothing", inb(NOBODY), 0xff);

    u32 edx = 0xabcd0000 | SCRATCH;
    asm volatile("inb %%dx, %%al" : "=a"(eax) : "d"(edx));
    check("the port is DX, not EDX", eax & 0xff, 0xa5);
}

static void immediate(void) {
    u8 value;
    asm volatile("movb $0xfa, %%al; outb %%al, $0x21; xorb %%al, %%al; inb $0x21, %%al"
                 : "=a"(value));
    check("OUT and IN with an immediate port", value, 0xfa);
    outb(0x21, 0xff);
}

static void flags_kept(void) {
    word before, after;
    asm volatile("cmp %%" REG_AX ", %%" REG_AX
                 "; stc; pushf; inb %%dx, %%al; outb %%al, %%dx; pushf; pop %0; pop %1"
                 : "=&r"(after), "=&r"(before)
                 : "d"(SCRATCH), "a"(0)
                 : "memory");
    check("IN and OUT keep the flags", after, before);
}

static void cmos(void) {
    u8 old = rtc_read(0x50);
    rtc_write(0x50, 0x3c);
    rtc_write(0x51, rtc_read(0x51));
    check("CMOS RAM keeps a byte", rtc_read(0x50), 0x3c);
    rtc_write(0x50, 0xc3);
    check("CMOS RAM keeps another byte", rtc_read(0x50), 0xc3);
    rtc_write(0x50, old);
    check("CMOS register D says valid", rtc_read(0x0d) & 0x80, 0x80);
    u8 second = rtc_read(0);
    check_true("the clock has a sane second", second <= 0x59);
}

static void pic(void) {
    pic_mask(0x5aa5);
    check("8259 masks", inb(0x21) | inb(0xa1) << 8, 0x5aa5);
    pic_mask(0xffff);
    check("8259 IRR and ISR are readable and idle",
        pic_read(PIC_MASTER, PIC_READ_ISR) | pic_read(PIC_SLAVE, PIC_READ_ISR) << 8, 0);
}

static u32 counter2(void) {
    outb(PIT_CONTROL, 0x80); /* latch */
    u32 low = inb(PIT_COUNTER2);
    return low | inb(PIT_COUNTER2) << 8;
}

static void pit(void) {
    outb(0x61, (inb(0x61) & ~2) | 1); /* gate of counter 2 on, speaker off */
    outb(PIT_CONTROL, 0xb4); /* counter 2, low then high byte, mode 2 */
    outb(PIT_COUNTER2, 0x34);
    outb(PIT_COUNTER2, 0x12);
    wait_ticks(10000);
    outb(PIT_CONTROL, 0xc8); /* read back count and status of counter 2 */
    u8 status = inb(PIT_COUNTER2);
    u32 count = inb(PIT_COUNTER2);
    count |= inb(PIT_COUNTER2) << 8;
    check("8254 read-back status", status & 0x3f, 0x34);
    check_true("8254 read-back count", count > 0 && count <= 0x1234);
    outb(PIT_CONTROL, 0xb8); /* mode 4: stops after one pass */
    outb(PIT_COUNTER2, 0xff);
    outb(PIT_COUNTER2, 0xff);
    wait_ticks(10000);
    u32 earlier = counter2();
    wait_ticks(400000);
    u32 later = counter2();
    check_true("8254 counts down", later < earlier);
}

void test_ports(void) {
    widths();
    immediate();
    flags_kept();
    cmos();
    pic();
    pit();
}
