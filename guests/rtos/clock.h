/* The tick: the 8254's counter 0, and how late its interrupts and the task that it wakes are. */
#ifndef RTOS_CLOCK_H
#define RTOS_CLOCK_H

#include "cpu.h"

#define PIT_HZ 1193182u
#define HZ_MIN 19u
#define HZ_MAX 10000u

#define SUBS    32 /* buckets an octave; below SUBS each value has its own */
#define BUCKETS ((32 - 4) * SUBS)

/* Latencies in TSC ticks. Median and 99.9 % are right to one part in SUBS, minimum and maximum exact. */
struct histogram {
    u32 count, min, max;
    u32 buckets[BUCKETS];
};

struct clock_statistics {
    bool locked; /* the deadlines are known; before that nothing is recorded */
    u32 interrupts;
    u32 earliest; /* how far before its deadline one came: how inexact the deadlines are */
    int lost;
    struct histogram handler, task;
};

void clock_init(u32 hz);
void clock_start(void);
u32 clock_hz(void);
u32 clock_divisor(void);
u32 clock_period(void); /* TSC ticks from tick to tick, whole */
u32 clock_measured(void); /* ticks since the statistics were reset */
void clock_statistics(struct clock_statistics *copy); /* of one moment */
void clock_reset(void);

u32 histogram_quantile(const struct histogram *histogram, u32 permille);
u32 histogram_value(u32 bucket); /* the lowest that falls into it */

#endif
