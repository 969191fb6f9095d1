/* IN and OUT, and the chips behind them (SDM Vol. 2A, "IN", "OUT"). */
#include "chips.h"
#include "test.h"

#define SCRATCH 0x3ff /* the 16550's scratch register */
#define NOBODY  0x5600 /* no device anywhere */
#define DROPPED "Bochs drops wide accesses to its 8-bit devices"

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

/* Wider accesses are made byte for byte at successive ports, with or without a device. */
static void split(void) {
    if (on_tcg()) {
        skip("wide accesses are split", "QEMU leaves them to the device of the first port");
        return;
    }
    pic_mask(0xffff);
    outw(0x21, 0x11ff); /* 11h is ICW1 where an 8259 gets it */
    check("OUT AX to 21h is no ICW1 for the slave", inb(0xa1), 0xff);
    pic_mask(0x5aa5);
    excuse(native(), 0xffffff, DROPPED);
    check("IN EAX of 20h: no device at 22h", inl(0x20) >> 8, 0xffffa5);
    excuse(native(), 0xffff, DROPPED);
    check("IN AX of A1h: no device at A2h", inw(0xa1), 0xff5a);
    check("IN AX of 4D1h: no device at 4D2h", inw(0x4d1) >> 8, 0xff);
    pic_mask(0xffff);
    outb(0x61, (inb(0x61) & 0xc) | 1);
    outw(PIT_CONTROL, 0x00b0);
    check("OUT AX to 43h leaves port 61h alone", inb(0x61) & 3, 1);
    check("IN AX of 43h: no device at 44h", inw(PIT_CONTROL) >> 8, 0xff);
    excuse(native(), 3, DROPPED);
    check("IN AX of 60h has port 61h in AH", inw(0x60) >> 8 & 3, 1);
    check("IN AX of 92h: no device at 93h", inw(0x92) >> 8, 0xff);
    u8 old = rtc_read(0x50);
    outw(RTC_INDEX, 0x5a50);
    excuse(native(), old, DROPPED);
    check("OUT AX to 70h sets index and data", inb(RTC_DATA), 0x5a);
    rtc_write(0x50, old);
    outb(SCRATCH, 0xa5);
    excuse(native(), 0xffff, DROPPED);
    check("IN AX of 3FFh", inw(SCRATCH), 0xffa5);
    u16 value = 0;
    word di = (word)&value;
    asm volatile("insw" : "+D"(di) : "d"(SCRATCH) : "memory");
    excuse(native(), 0xffff, DROPPED);
    check("INSW of 3FFh", value, 0xffa5);
    value = 0x11ff;
    word si = (word)&value;
    asm volatile("outsw" : "+S"(si) : "d"(0x21) : "memory");
    check("OUTSW to 21h is no ICW1 for the slave", inb(0xa1), 0xff);
    outl(0xcf8, 0x80000600); /* 06h would be a reset at CF9h */
    check("OUT EAX to CF8h does not reach CF9h", inb(0xcf9) & 0xb, 0);
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
    split();
    flags_kept();
    cmos();
    pic();
    pit();
}
