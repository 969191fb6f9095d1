/* The other processors: started by INIT and SIPI, they wait for functions to run.
 *
 * A CPU's number is its APIC ID, 0 to cpus - 1; CPU 0 is the one that has booted. The others wait with interrupts on, in a
 * loop of PAUSE, and count their turns. Every wait has an end: what does not come is a FAIL.
 */
#ifndef SMP_CPUS_H
#define SMP_CPUS_H

#ifndef __ASSEMBLER__
#include "apic.h"
#include "test.h"
#endif

#define CPUS_MAX 16
#define STACK    16384

/* Where the trampoline lies, for two vectors of a SIPI. */
#define TRAMPOLINE  0x6000
#define TRAMPOLINE2 0x7000

/* What the trampoline notes there of the CPU's state before it changes it: offsets. */
#define AT_START 0xf00

#ifndef __ASSEMBLER__
struct PACKED at_start {
    u32 eax, ebx, ecx, edx, esi, edi, ebp, esp, cr0, cr2, cr3, cr4;
    u16 cs, ds, es, fs, gs, ss;
    u16 flags, ip;
    u16 gdt_limit;
    u32 gdt_base;
    u16 idt_limit;
    u32 idt_base;
};

extern u32 cpus;

#define ALL    ((1u << cpus) - 1) /* a bit a CPU */
#define OTHERS (ALL & ~1u)

struct cpu {
    volatile u32 started; /* how often it came through the trampoline */
    volatile u32 turns; /* of its loop */
    void (*volatile function)(void);
    volatile u32 given, done; /* functions */
    volatile u32 came[VECTORS]; /* interrupts, of the vectors that count_here() counts */
};

extern struct cpu cpu[CPUS_MAX];

/* The number of the CPU that asks, without an exit: by its stack. */
u32 this_cpu(void);

/* Puts the trampoline into place and starts CPUs 1 to count - 1, one by one; false where one does not come. */
bool cpus_start(u32 count);

/* INIT, and SIPI with the page of a trampoline; waits until the CPU is there. */
void cpu_init(u32 number);
void cpu_sipi(u32 number, u32 page);
bool cpu_start(u32 number, u32 page);
struct at_start *cpu_at_start(u32 page);

/* Runs a function on a CPU, 0 to be called here, and waits; cpu_give() does not wait. */
void run_on(u32 number, void (*function)(void));
void cpu_give(u32 number, void (*function)(void));
void cpu_take(u32 number);

/* On all at once. */
void run_everywhere(void (*function)(void));

/* Each CPU has passed its loop once, interrupts on: what was pending has come. */
void settle_everywhere(void);

/* In a function that runs on all: none goes on before all are here. */
void barrier(void);

/* Waits for something that another CPU does, with PAUSE; on CPU 0 the time limit is a FAIL and the end. */
bool reached(volatile u32 *counter, u32 count);
void await(volatile u32 *counter, u32 count, const char *what);
extern u64 soon; /* ticks of the limit */

/* Counts an interrupt for the CPU that it comes to, and ends it. */
void count_here(u32 vector);
void forget_counts(void);

/* Which CPUs got the vector exactly `times` times since forget_counts(). */
u32 who_got(u32 vector, u32 times);

/* A bit a CPU where `holds` is true there; NULL is true. */
u32 where(bool (*holds)(void));
#endif
#endif
