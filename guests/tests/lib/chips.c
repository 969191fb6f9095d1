/* The 8259 pair, the 8254 and the MC146818. */
#include "chips.h"

#include "test.h"

volatile u32 pit_ticks;

void pic_init(void) {
    outb(PIC_MASTER, 0x11); /* ICW1: edge, cascade, ICW4 */
    outb(PIC_SLAVE, 0x11);
    outb(PIC_MASTER + 1, VECTOR_PIC);
    outb(PIC_SLAVE + 1, VECTOR_PIC + 8);
    outb(PIC_MASTER + 1, 4); /* slave at IR2 */
    outb(PIC_SLAVE + 1, 2);
    outb(PIC_MASTER + 1, 1); /* 8086 mode */
    outb(PIC_SLAVE + 1, 1);
    pic_mask(0xffff);
}

void pic_mask(u16 mask) {
    outb(PIC_MASTER + PIC_IMR, mask);
    outb(PIC_SLAVE + PIC_IMR, mask >> 8);
}

u8 pic_read(u16 chip, u8 command) {
    outb(chip, command);
    return inb(chip);
}

void pic_eoi(void) {
    outb(PIC_MASTER, PIC_EOI);
}

static void pit_load(u8 control, u16 clocks) {
    outb(PIT_CONTROL, control);
    outb(PIT_COUNTER0, clocks);
    outb(PIT_COUNTER0, clocks >> 8);
}

void pit_periodic(u16 clocks) {
    pit_load(0x34, clocks);
}

void pit_once(u16 clocks) {
    pit_load(0x30, clocks);
}

void pit_stop(void) {
    outb(PIT_CONTROL, 0x30);
}

u16 pit_count(void) {
    outb(PIT_CONTROL, 0x00); /* latch counter 0 */
    u8 low = inb(PIT_COUNTER0);
    return low | inb(PIT_COUNTER0) << 8;
}

static bool count_tick(struct frame *frame) {
    (void)frame;
    pit_ticks++;
    pic_eoi();
    return true;
}

void pit_start_counting(u16 clocks) {
    pit_ticks = 0;
    set_hook(VECTOR_PIC, count_tick);
    pit_periodic(clocks);
    pic_mask(0xfffe);
}

void pit_stop_counting(void) {
    pit_stop();
    sti(); /* what is pending comes now */
    for (u32 turn = 0; turn < 100; turn++) {
        pause();
    }
    cli();
    pic_mask(0xffff);
    set_hook(VECTOR_PIC, NULL);
}

u8 rtc_read(u8 index) {
    outb(RTC_INDEX, index);
    return inb(RTC_DATA);
}

void rtc_write(u8 index, u8 value) {
    outb(RTC_INDEX, index);
    outb(RTC_DATA, value);
}
