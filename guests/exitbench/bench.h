/* A row of the bench, and what rows use.
 *
 * A row measures one operation, round by round, with RDTSC before and after it. The median of the row `empty`, whose
 * operation is nothing, is subtracted from all the others.
 */
#ifndef EXITBENCH_BENCH_H
#define EXITBENCH_BENCH_H

#include "console.h"
#include "test.h"

#define ROUNDS_MAX 4000

struct row {
    const char *name;
    const char *(*begin)(void); /* makes the row possible, or says why it is not; may be absent */
    void (*measure)(u32 *samples, u32 rounds);
    void (*once)(void); /* one round, with a mark before and after it that Bochs's debugger sees */
    void (*end)(void); /* may be absent */
    bool whole; /* samples are no round trips: nothing is subtracted */
};

extern const struct row rows[];
extern const u32 row_count;

/* The low half of the TSC: two reads are never 2^32 ticks apart. */
static inline u32 ticks(void) {
    u32 low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low;
}

/* Bochs's magic breakpoint; nothing on any other machine. */
static inline void mark(void) {
    asm volatile("xchgw %%bx, %%bx" : : : "memory");
}

/* Defines NAME_measure and NAME_once for an operation, which is a statement. `i` is the round. Of NAME_once's two rounds
 * the second is marked: by then the monitor knows the place, and `volatile` keeps the compiler from making it two. */
#define OPERATION(name, operation)                                                                 \
    static void name##_measure(u32 *samples, u32 rounds) {                                         \
        for (u32 i = 0; i < rounds; i++) {                                                         \
            u32 before = ticks();                                                                  \
            operation;                                                                             \
            samples[i] = ticks() - before;                                                         \
        }                                                                                          \
    }                                                                                              \
    static void name##_once(void) {                                                                \
        for (volatile u32 turn = 0; turn < 2; turn++) {                                            \
            u32 i = turn;                                                                          \
            (void)i;                                                                               \
            if (turn) {                                                                            \
                mark();                                                                            \
            }                                                                                      \
            operation;                                                                             \
            if (turn) {                                                                            \
                mark();                                                                            \
            }                                                                                      \
        }                                                                                          \
    }

/* ---- options.c: the command line, KEY=VALUE a word ---- */
void options_init(const void *multiboot);
/* The value behind KEY, which ends at a space or at the end, or NULL. */
const char *option(const char *key);
u32 option_number(const char *key, u32 otherwise);
/* Whether NAME is in the option's comma-separated list, or the option is absent. */
bool option_lists(const char *key, const char *name);

/* ---- interrupts.c: the 8259s are off, the local APIC is in x2APIC mode ---- */
void interrupts_init(void);
/* x2APIC mode, from which there is no way back; says why not where the CPU has none. */
const char *x2apic_on(void);
extern volatile u32
    timer_ticks; /* ticks() at the first instruction that it can be read in the handler */
extern volatile bool timer_came, ipi_came;

/* ---- timers.c, touch.c ---- */
const char *deadline_begin(void);
void tsc_deadline_arm_measure(u32 *samples, u32 rounds);
void tsc_deadline_arm_once(void);
void deadline_end(void);

void late_spin_measure(u32 *samples, u32 rounds);
void late_spin_once(void);
void late_hlt_measure(u32 *samples, u32 rounds);
void late_hlt_once(void);
const char *touch_begin(void);
void page_first_touch_measure(u32 *samples, u32 rounds);
void page_first_touch_once(void);

#endif
