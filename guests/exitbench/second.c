/* Rows with a second processor: an IPI there, and an answer back (SDM Vol. 3A, "Multiple-Processor (MP) Initialization").
 *
 * In x2APIC mode. Of a row's two CPUs each waits in the row's way: in HLT, or spinning with PAUSE. Where both share one CPU
 * of the host, a round is two changes from one to the other.
 */
#include "apic.h"
#include "bench.h"
#include "descriptors.h"

#define TRAMPOLINE   0x6000u /* a page below 1 MiB */
#define INIT         0x500u /* ICR: delivery mode */
#define STARTUP      0x600u
#define VECTOR_CALL  0x36
#define WAIT_INIT    1000000u /* ticks */
#define WAIT_STARTUP 100000000u
#define SECOND       (1ull << 32) /* ICR: destination */

struct interrupt_frame;

extern const u8 trampoline[], trampoline_end[];

void cpu_main(u32 number);

static volatile bool started;
static volatile bool spins; /* how the second one waits */
static volatile bool called; /* memory is the answer */

static void send(u64 icr) {
    wrmsr(X2APIC(APIC_ICR), icr);
}

/* On the second CPU: answers by memory and by an IPI. */
static void __attribute__((interrupt)) on_call(struct interrupt_frame *frame) {
    (void)frame;
    called = true;
    send(APIC_ASSERT | VECTOR_IPI);
    wrmsr(X2APIC(APIC_EOI), 0);
}

/* The same, and the first CPU looks at the memory only. */
static void __attribute__((interrupt)) on_function_call(struct interrupt_frame *frame) {
    (void)frame;
    called = true;
    wrmsr(X2APIC(APIC_EOI), 0);
}

/* Where the trampoline leads. */
void cpu_main(u32 number) {
    (void)number;
    descriptors_load();
    load_idt(VECTORS * GATE_BYTES - 1);
    x2apic_here();
    started = true;
    for (;;) {
        if (spins) {
            sti();
            while (spins) {
                pause();
            }
            cli();
        } else {
            asm volatile("sti; hlt; cli" : : : "memory");
        }
    }
}

static const char *second_begin(void) {
    const char *reason = x2apic_on();
    if (reason || started) {
        return reason;
    }
    if (option_number("cpus", 1) < 2) {
        return "there is no second processor";
    }
    u8 *target = (u8 *)(word)TRAMPOLINE;
    for (u32 byte = 0; byte < (u32)(trampoline_end - trampoline); byte++) {
        target[byte] = trampoline[byte];
    }
    send(SECOND | INIT | APIC_ASSERT);
    u32 start = ticks();
    while (ticks() - start < WAIT_INIT) {
        pause();
    }
    send(SECOND | STARTUP | APIC_ASSERT | TRAMPOLINE >> 12);
    start = ticks();
    while (!started && ticks() - start < WAIT_STARTUP) {
        pause();
    }
    return started ? NULL : "the second processor does not start";
}

static void set_call(void (*handler)(struct interrupt_frame *)) {
    set_gate(VECTOR_CALL, KERNEL_CS, (word)handler, ACCESS_INTERRUPT_GATE, 0);
}

static const char *answered_begin(void) {
    set_call(on_call);
    return second_begin();
}

static const char *spinning_begin(void) {
    const char *reason = answered_begin();
    if (!reason) {
        spins = true;
        send(SECOND | APIC_ASSERT | VECTOR_IPI); /* out of its HLT */
    }
    return reason;
}

static void spinning_end(void) {
    spins = false;
}

static const char *call_begin(void) {
    set_call(on_function_call);
    return second_begin();
}

OPERATION(ipi_hlt, {
    ipi_came = false;
    send(SECOND | APIC_ASSERT | VECTOR_CALL);
    while (!ipi_came) {
        asm volatile("sti; hlt; cli" : : : "memory");
    }
})
OPERATION(ipi_pause, {
    ipi_came = false;
    send(SECOND | APIC_ASSERT | VECTOR_CALL);
    sti();
    while (!ipi_came) {
        pause();
    }
    cli();
})
OPERATION(ipi_call, {
    called = false;
    send(SECOND | APIC_ASSERT | VECTOR_CALL);
    while (!called) {
        pause();
    }
})

static const struct row second_rows[] = {
    ROW(ipi_hlt, .begin = answered_begin),
    ROW(ipi_pause, .begin = spinning_begin, .end = spinning_end),
    ROW(ipi_call, .begin = call_begin),
};
GROUP(second);
