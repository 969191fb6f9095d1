/* The 8259 pair, the 8254 and the MC146818. */
#ifndef TESTS_CHIPS_H
#define TESTS_CHIPS_H

#include "types.h"

#define PIC_MASTER   0x20
#define PIC_SLAVE    0xa0
#define PIC_IMR      1 /* offset of the mask */
#define PIC_EOI      0x20
#define PIC_READ_IRR 0x0a
#define PIC_READ_ISR 0x0b

#define PIT_COUNTER0 0x40
#define PIT_COUNTER2 0x42
#define PIT_CONTROL  0x43
#define PIT_HZ       1193182u

#define RTC_INDEX 0x70
#define RTC_DATA  0x71

/* Both 8259s, vectors VECTOR_PIC on, everything masked. */
void pic_init(void);
void pic_mask(u16 mask);
u8 pic_read(u16 chip, u8 command);
void pic_eoi(void);

/* Counter 0: mode 2 at this many clocks a tick, or mode 0 (one interrupt after the clocks). Mode 0 without a
 * count stops it. */
void pit_periodic(u16 clocks);
void pit_once(u16 clocks);
void pit_stop(void);
u16 pit_count(void);

/* IRQ0 as VECTOR_PIC, unmasked, periodic, counted in pit_ticks with EOI; and all of it off again. */
extern volatile u32 pit_ticks;
void pit_start_counting(u16 clocks);
void pit_stop_counting(void);

u8 rtc_read(u8 index);
void rtc_write(u8 index, u8 value);

#endif
