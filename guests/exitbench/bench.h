/* A row of the bench, and what rows use.
 *
 * A row measures one operation, round by round, with RDTSC before and after it. The median of the row `empty`, whose
 * operation is nothing, is subtracted from all the others.
 */
#ifndef EXITBENCH_BENCH_H
#define EXITBENCH_BENCH_H

#include "console.h"
#include "options.h"
#include "test.h"

#define ROUNDS_MAX 4000
#define HYPERVISOR (1u << 31) /* CPUID.1:ECX */
#define MMIO(gpa)  (*(volatile u32 *)(word)(gpa))

struct row {
    const char *name;
    const char *(*begin)(void); /* makes the row possible, or says why it is not; may be absent */
    void (*measure)(u32 *samples, u32 rounds);
    void (*once)(void); /* one round, with a mark before and after it that Bochs's debugger sees */
    void (*end)(void); /* may be absent */
    bool whole; /* samples are no round trips: nothing is subtracted */
};

/* The rows of one file. */
struct group {
    const struct row *rows;
    u32 count;
};

#define ROW(row, ...)                                                                              \
    { .name = #row, .measure = row##_measure, .once = row##_once, __VA_ARGS__ }
#define GROUP(subject) const struct group subject##_group = {subject##_rows, COUNT(subject##_rows)}

extern const struct group cpu_group, ports_group, memory_group, xapic_group, x2apic_group,
    second_group, timers_group, off_group;

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

/* Defines NAME_measure and NAME_once for an operation, which is a statement, as are `before` and `behind`, which are not
 * measured. `i` is the round. Of NAME_once's two rounds the second is marked: by then the monitor knows the place, and
 * `volatile` keeps the compiler from making it two. */
#define STEPS(name, before, operation, behind)                                                     \
    static void name##_measure(u32 *samples, u32 rounds) {                                         \
        for (u32 i = 0; i < rounds; i++) {                                                         \
            before;                                                                                \
            u32 start = ticks();                                                                   \
            operation;                                                                             \
            samples[i] = ticks() - start;                                                          \
            behind;                                                                                \
        }                                                                                          \
    }                                                                                              \
    static void name##_once(void) {                                                                \
        for (volatile u32 turn = 0; turn < 2; turn++) {                                            \
            u32 i = turn;                                                                          \
            (void)i;                                                                               \
            before;                                                                                \
            if (turn) {                                                                            \
                mark();                                                                            \
            }                                                                                      \
            operation;                                                                             \
            if (turn) {                                                                            \
                mark();                                                                            \
            }                                                                                      \
            behind;                                                                                \
        }                                                                                          \
    }
#define OPERATION(name, operation) STEPS(name, , operation, )

/* A reason for `begin` where no monitor is, or NULL. */
static inline const char *hypervisor_begin(void) {
    return cpuid(1, 0).ecx & HYPERVISOR ? NULL : "no monitor is here";
}

/* ---- interrupts.c: the 8259s are off ---- */
#define X2APIC(offset) (0x800 + ((offset) >> 4))
#define XAPIC          0xfee00000u
#define VECTOR_UART    0x34

void interrupts_init(void);
/* The page at XAPIC; says why not where the local APIC is in x2APIC mode already. */
const char *xapic_on(void);
/* The same on any CPU, which has it. */
void x2apic_here(void);
/* x2APIC mode, from which there is no way back; says why not where the CPU has none. */
const char *x2apic_on(void);
extern volatile u32
    timer_ticks; /* ticks() at the first instruction that it can be read in the handler */
extern volatile bool timer_came, ipi_came, uart_came;

/* ---- legacy.S: leaves 64-bit mode for a mode without it, and comes back ---- */
/* Runs `code`, 32-bit code, with ESI: gpa, EDI: samples, ECX: rounds. Interrupts are off. */
void legacy_run(void (*code)(void), u32 cr3, u32 cr4, u32 gpa, u32 *samples, u32 rounds);
/* For legacy_run(): 32-bit reads of memory, measured; and one between marks. */
void legacy_read(void);
void legacy_read_once(void);

/* ---- touch.c ---- */
const char *touch_begin(void);
void page_first_touch_measure(u32 *samples, u32 rounds);
void page_first_touch_once(void);

#endif
