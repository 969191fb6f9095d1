/* The row of the first touch: one read from a page that nothing in this machine has touched yet. */
#include "bench.h"

#define FIRST 0x01000000u /* 16 MiB, behind everything else; the machine has PAGES more from here */
#define PAGE  4096u
#define PAGES 4095u
#define LEFT  1u /* for page_first_touch_once() */

static u32 next;

const char *touch_begin(void) {
    next = 0;
    return NULL;
}

static volatile u32 *fresh(void) {
    return (volatile u32 *)(word)(FIRST + PAGE * next++);
}

void page_first_touch_measure(u32 *samples, u32 rounds) {
    for (u32 i = 0; i < rounds; i++) {
        volatile u32 *page = next < PAGES - LEFT ? fresh() : NULL;
        u32 before = ticks();
        if (page) {
            (void)*page;
        }
        samples[i] = ticks() - before;
    }
}

void page_first_touch_once(void) {
    volatile u32 *page = fresh();
    mark();
    (void)*page;
    mark();
}
