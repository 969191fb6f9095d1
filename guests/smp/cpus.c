/* Starts the other processors and gives them work (SDM Vol. 3A, "Multiple-Processor (MP) Initialization"). */
#include "cpus.h"

#include "descriptors.h"
#include "report.h"

#define INIT         0x500u /* ICR: delivery mode */
#define STARTUP      0x600u
#define WAIT_INIT    1000000u /* ticks: 10 ms of the slowest engine */
#define WAIT_STARTUP 20000u /* then the second SIPI */
#define SOON         1500000000ull
#define SOON_TCG     40000000000ull /* its TSC is the host's, and the host is busy */

extern u8 trampoline[], trampoline_end[], stacks[];

void cpu_main(u32 number);

struct cpu cpu[CPUS_MAX];
u32 cpus = 1;
u64 soon;

u32 this_cpu(void) {
    word at = (word)__builtin_frame_address(0) - (word)stacks;
    return at < (word)STACK * CPUS_MAX ? at / STACK : 0;
}

/* Where the trampoline leads. */
void cpu_main(u32 number) {
    struct cpu *self = &cpu[number];
    descriptors_load();
    load_idt(VECTORS * GATE_BYTES - 1);
    apic_enable();
    apic_write(APIC_LVT_LINT0, APIC_MASKED); /* the 8259s are CPU 0's */
    self->done = self->given;
    self->started++;
    for (;;) {
        sti();
        while (self->given == self->done) {
            self->turns++;
            pause();
        }
        self->function();
        self->done++;
    }
}

bool reached(volatile u32 *counter, u32 count) {
    u64 start = rdtsc();
    while (*counter < count) {
        if (rdtsc() - start > soon) {
            return *counter >= count;
        }
        for (u32 turn = 0; turn < 16 && *counter < count; turn++) {
            pause();
        }
    }
    return true;
}

void await(volatile u32 *counter, u32 count, const char *what) {
    if (!reached(counter, count)) {
        lost(what, *counter, count, this_cpu());
    }
}

struct at_start *cpu_at_start(u32 page) {
    return (struct at_start *)(word)(page + AT_START);
}

static void put_trampoline(u32 page) {
    u8 *target = (u8 *)(word)page;
    for (u32 byte = 0; byte < (u32)(trampoline_end - trampoline); byte++) {
        target[byte] = trampoline[byte];
    }
}

void cpu_init(u32 number) {
    apic_send(INIT | APIC_ASSERT, number);
    wait_ticks(WAIT_INIT);
}

void cpu_sipi(u32 number, u32 page) {
    apic_send(STARTUP | APIC_ASSERT | page >> 12, number);
}

bool cpu_start(u32 number, u32 page) {
    u32 before = cpu[number].started;
    cpu_init(number);
    cpu_sipi(number, page);
    wait_ticks(WAIT_STARTUP);
    if (cpu[number].started == before) {
        cpu_sipi(number, page);
    }
    return reached(&cpu[number].started, before + 1);
}

bool cpus_start(u32 count) {
    soon = on_tcg() ? SOON_TCG : SOON;
    put_trampoline(TRAMPOLINE);
    put_trampoline(TRAMPOLINE2);
    while (cpus < count) {
        if (!cpu_start(cpus, TRAMPOLINE)) {
            return false;
        }
        cpus++;
    }
    return true;
}

void cpu_give(u32 number, void (*function)(void)) {
    cpu[number].function = function;
    asm volatile("" : : : "memory");
    cpu[number].given++;
}

void cpu_take(u32 number) {
    await(&cpu[number].done, cpu[number].given, "a CPU does not come back");
}

void run_on(u32 number, void (*function)(void)) {
    if (number == this_cpu()) {
        function();
        return;
    }
    cpu_give(number, function);
    cpu_take(number);
}

void run_everywhere(void (*function)(void)) {
    for (u32 other = 1; other < cpus; other++) {
        cpu_give(other, function);
    }
    function();
    for (u32 other = 1; other < cpus; other++) {
        cpu_take(other);
    }
}

static void pass(void) {
    sti();
    asm volatile("nop");
    cli();
}

void settle_everywhere(void) {
    for (u32 number = 0; number < cpus; number++) {
        run_on(number, pass);
    }
}

void barrier(void) {
    static volatile u32 arrived, round;
    u32 mine = round;
    if (__atomic_add_fetch(&arrived, 1, __ATOMIC_SEQ_CST) == cpus) {
        arrived = 0;
        round = mine + 1;
        return;
    }
    u64 start = rdtsc();
    while (round == mine) {
        pause();
        if (rdtsc() - start > soon) {
            lost("a CPU is missing at the barrier", arrived, round, this_cpu());
        }
    }
}

static bool count(struct frame *frame) {
    cpu[this_cpu()].came[frame->vector]++;
    if (frame->vector != NMI) {
        apic_write(APIC_EOI, 0);
    }
    return true;
}

void count_here(u32 vector) {
    set_hook(vector, count);
}

void forget_counts(void) {
    for (u32 number = 0; number < CPUS_MAX; number++) {
        for (u32 vector = 0; vector < VECTORS; vector++) {
            cpu[number].came[vector] = 0;
        }
    }
}

u32 who_got(u32 vector, u32 times) {
    u32 found = 0;
    for (u32 number = 0; number < cpus; number++) {
        found |= (cpu[number].came[vector] == times) << number;
    }
    return found;
}

static bool (*asked)(void);
static volatile u32 answers;

static void answer(void) {
    if (!asked || asked()) {
        __atomic_or_fetch(&answers, 1u << this_cpu(), __ATOMIC_SEQ_CST);
    }
}

u32 where(bool (*holds)(void)) {
    asked = holds;
    answers = 0;
    for (u32 number = 0; number < cpus; number++) {
        run_on(number, answer);
    }
    return answers;
}
