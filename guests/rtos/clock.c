/* The tick and its latency.
 *
 * When an interrupt was due is known from the 8254 itself: its counter says how long ago the last edge was. At
 * the start it is read every SAMPLE ticks, and a second-order loop learns phase and period from these edges.
 * Then nothing is recorded yet. From there on it is read ever more rarely, at doubling distances, each reading
 * making the period so much more exact: a read costs three port accesses, and Bochs 2.7 now and then holds its
 * 8254's edges back for some milliseconds after one. Latency is the TSC at the interrupt's stub, or in the
 * woken task, less the deadline.
 */
#include "clock.h"
#include "kernel.h"

#define COUNTER0         0x40
#define CONTROL          0x43
#define SAMPLE           32 /* ticks from one reading of the counter to the next */
#define SETTLE_TICKS     16 /* at the start, ignored */
#define MEASURE_TICKS    256 /* for a good period */
#define ATTEMPTS         32 /* at a rough one */
#define READINGS         3 /* of which the best counts */
#define LOCK_SAMPLES     128 /* readings until the loop is taken to be right */
#define REFINE_FIRST     1024 /* ticks from there to the next reading */
#define REFINE_LAST      0x10000 /* and the longest distance between two */
#define LATENCY_PRIORITY 0

enum phase { SETTLING, MEASURING, LOCKING, LOCKED };

static struct {
    u32 hz, divisor;
    enum phase phase;
    u32 step; /* ticks or samples in this phase */
    u32 next_reading; /* LOCKED: the step of it */
    u64 first;
    u64 deadline; /* TSC, and its fraction in 2**-32 */
    u32 fraction;
    u64 period; /* TSC ticks in 32.32 */
    u64 last; /* when the last interrupt came */
    bool overdue; /* it came more than a period late */
    u64 wake_deadline;
    bool waking;
    struct semaphore wake;
    struct clock_statistics statistics;
} clock;

static u32 bucket_of(u32 value) {
    if (value < SUBS) {
        return value;
    }
    u32 exponent = 31 - __builtin_clz(value);
    return (exponent - 4) * SUBS + ((value >> (exponent - 5)) & (SUBS - 1));
}

u32 histogram_value(u32 bucket) {
    if (bucket < SUBS) {
        return bucket;
    }
    return (SUBS + bucket % SUBS) << (bucket / SUBS - 1);
}

static void record(struct histogram *histogram, s64 late) {
    if (late < 0) {
        u32 early = -late;
        clock.statistics.earliest =
            early > clock.statistics.earliest ? early : clock.statistics.earliest;
        late = 0;
    }
    u32 value = late > 0xffffffff ? 0xffffffff : late;
    histogram->min = histogram->count && histogram->min < value ? histogram->min : value;
    histogram->max = histogram->max > value ? histogram->max : value;
    histogram->count++;
    histogram->buckets[bucket_of(value)]++;
}

u32 histogram_quantile(const struct histogram *histogram, u32 permille) {
    u32 rank = divide((u64)histogram->count * permille + 999, 1000), seen = 0;
    for (u32 bucket = 0; bucket < BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= rank && seen) {
            u32 value = histogram_value(bucket);
            value = value < histogram->min ? histogram->min : value;
            return value > histogram->max ? histogram->max : value;
        }
    }
    return 0;
}

static void advance(void) {
    u64 fraction = (u64)clock.fraction + (u32)clock.period;
    clock.deadline += (clock.period >> 32) + (fraction >> 32);
    clock.fraction = fraction;
}

/* Clocks since the last edge, by the counter, which in mode 2 is reloaded with the divisor at each. `when` is the
 * TSC of the reading and `width` how inexact that is. */
static u32 elapsed_clocks(u64 *when, u32 *width) {
    u64 before = rdtsc();
    outb(CONTROL, 0x00); /* latch counter 0 */
    u64 after = rdtsc();
    u32 count = inb(COUNTER0);
    count |= inb(COUNTER0) << 8;
    count = count ? count : 0x10000;
    *width = after - before;
    *when = before + *width / 2;
    return clock.divisor > count ? clock.divisor - count : 0;
}

/* The period roughly, from pairs of readings within one: the pair that is least inexact. It stays 0 where two readings
 * take longer than a period. */
static void measure_roughly(void) {
    u32 best = 0xffffffff;
    for (u32 attempt = 0; attempt < ATTEMPTS; attempt++) {
        u64 first, second;
        u32 first_width, second_width;
        u32 start = elapsed_clocks(&first, &first_width), end;
        do {
            end = elapsed_clocks(&second, &second_width);
        } while (end >= start && end - start < clock.divisor / 2);
        u32 width = first_width + second_width;
        if (end > start && width < best && second - first < 0x80000000) {
            best = width;
            clock.period = divide(((second - first) * clock.divisor) << 16, end - start) << 16;
        }
    }
}

/* TSC of the last edge, by the least inexact of a few readings. */
static u64 last_edge(void) {
    u64 edge = 0;
    u32 best = 0xffffffff;
    for (u32 reading = 0; reading < READINGS; reading++) {
        u64 when;
        u32 width, elapsed = elapsed_clocks(&when, &width);
        if (width < best) {
            u64 half_clocks = ((u64)elapsed * 2 + 1) * (u32)(clock.period >> 32);
            best = width;
            edge = when - divide(half_clocks, clock.divisor * 2);
        }
    }
    return edge;
}

/* How far the last edge is from where the model has one, within half a period either way. */
static s64 phase_error(void) {
    s64 period = clock.period >> 32, error = last_edge() - clock.deadline;
    while (error > period / 2) {
        error -= period;
    }
    while (error < -period / 2) {
        error += period;
    }
    return error;
}

/* Quickly at first, then calmly, so that a single inexact reading moves little. */
static void follow(s64 error) {
    bool calm = clock.step > LOCK_SAMPLES / 2 * SAMPLE;
    clock.deadline += error / (calm ? 16 : 4);
    /* error / 512 or error / 32, over SAMPLE ticks */
    clock.period += error * (1ll << (calm ? 32 - 9 - 5 : 32 - 5 - 5));
}

/* Phase and period go half the way to the reading, over all the time since the first. */
static void refine(void) {
    if (++clock.step < clock.next_reading) {
        return;
    }
    clock.next_reading += clock.step < REFINE_LAST ? clock.step : REFINE_LAST;
    s64 error = phase_error() / 2;
    u64 change = divide((u64)(error < 0 ? -error : error) << 32, clock.step);
    clock.deadline += error;
    clock.period += error < 0 ? -change : change;
}

/* How many periods there were in MEASURE_TICKS ticks: more, if the rough period says that ticks were lost. A clock
 * or two is as inexact as that is. */
static u32 periods_in(u64 whole) {
    u32 rough = clock.period >> 32, inexact = MEASURE_TICKS * 4 / clock.divisor;
    u32 periods = rough ? divide(whole + rough / 2, rough) : MEASURE_TICKS;
    return periods + inexact - MEASURE_TICKS <= 2 * inexact ? MEASURE_TICKS : periods;
}

static void settle(u64 entered) {
    clock.step++;
    if (clock.phase == SETTLING && clock.step == SETTLE_TICKS) {
        clock.phase = MEASURING;
        clock.step = 0;
        clock.first = entered;
    } else if (clock.phase == MEASURING && clock.step == MEASURE_TICKS) {
        clock.phase = LOCKING;
        clock.step = 0;
        u64 whole = entered - clock.first;
        clock.period = divide(whole << 16, periods_in(whole)) << 16;
        clock.deadline = last_edge();
    }
}

/* Two ticks in a row a whole period late, and a period apart: one between the deadline and now is lost. Where it
 * comes after all, it is early, and no interrupt is earlier than its deadline. A deadline may be inexact by 1/8 of
 * a period here. */
static void notice_lost(u64 entered) {
    s64 period = clock.period >> 32, slack = period / 8;
    s64 late = entered - clock.deadline;
    bool overdue = late >= period - slack;
    if (clock.overdue && entered - clock.last > (u64)(period - slack)) {
        while (late >= period - slack) {
            advance();
            late -= period;
            clock.statistics.lost++;
        }
        overdue = false;
    }
    while (late < -slack) {
        clock.deadline -= period;
        late += period;
        clock.statistics.lost--;
    }
    clock.overdue = overdue;
}

static void tick(u64 entered) {
    clock.statistics.interrupts++;
    if (clock.phase < LOCKING) {
        settle(entered);
        timers_tick();
        return;
    }
    advance();
    notice_lost(entered);
    clock.last = entered;
    if (clock.phase == LOCKED) {
        record(&clock.statistics.handler, entered - clock.deadline);
        if (!clock.waking) {
            clock.waking = true;
            clock.wake_deadline = clock.deadline;
        }
        semaphore_give(&clock.wake);
    }
    timers_tick();
    if (clock.phase == LOCKED) {
        refine();
    } else if (++clock.step % SAMPLE == 0) {
        follow(phase_error());
        if (clock.step == LOCK_SAMPLES * SAMPLE) {
            clock.phase = LOCKED;
            clock.step = 0;
            clock.next_reading = REFINE_FIRST;
            clock_reset();
            clock.statistics.locked = true;
        }
    }
}

/* The task that each tick wakes. */
static void latency(void *argument) {
    (void)argument;
    for (;;) {
        semaphore_take(&clock.wake, FOREVER);
        u64 now = rdtsc();
        u32 flags = interrupts_off();
        if (clock.waking) { /* else the tick came while the last one was being recorded */
            record(&clock.statistics.task, now - clock.wake_deadline);
            clock.waking = false;
        }
        interrupts_restore(flags);
    }
}

void clock_init(u32 hz) {
    clock.hz = hz;
    clock.divisor = (PIT_HZ + hz / 2) / hz;
    semaphore_init(&clock.wake, 0, 1);
    task_create("tLatency", LATENCY_PRIORITY, latency, NULL);
}

/* Interrupts are still off. */
void clock_start(void) {
    outb(CONTROL, 0x34); /* counter 0, low then high byte, mode 2 */
    outb(COUNTER0, clock.divisor);
    outb(COUNTER0, clock.divisor >> 8);
    measure_roughly();
    irq_connect(0, tick);
}

u32 clock_hz(void) {
    return clock.hz;
}

u32 clock_divisor(void) {
    return clock.divisor;
}

u32 clock_period(void) {
    return clock.period >> 32;
}

u32 clock_measured(void) {
    return clock.statistics.handler.count;
}

/* With one instruction: interrupts wait for it. */
void clock_statistics(struct clock_statistics *copy) {
    const void *from = &clock.statistics;
    u32 words = sizeof(*copy) / sizeof(u32);
    u32 flags = interrupts_off();
    asm volatile("rep movsl" : "+D"(copy), "+S"(from), "+c"(words) : : "memory");
    interrupts_restore(flags);
}

void clock_reset(void) {
    u32 flags = interrupts_off();
    bool locked = clock.statistics.locked;
    clock.statistics = (struct clock_statistics){.locked = locked};
    interrupts_restore(flags);
}
