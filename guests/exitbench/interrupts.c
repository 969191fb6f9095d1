/* IDT, exceptions (the end), the handlers of the rows, the local APIC's modes. */
#include "apic.h"
#include "bench.h"
#include "descriptors.h"

#define UART_IIR   0x3fa
#define UD2_LENGTH 2

struct interrupt_frame;

void trap_entry(const struct frame *frame);

volatile u32 timer_ticks;
volatile bool timer_came, ipi_came, uart_came;

static bool x2;

/* Where the library's stubs lead: nothing here is expected. */
void trap_entry(const struct frame *frame) {
    print("failed: exception ");
    print_number(frame->vector);
    print(" error ");
    print_number(frame->error);
    print(" at ");
    print_number(frame->ip);
    print("\n");
    console_drain();
    power_off();
}

static void eoi(void) {
    if (x2) {
        wrmsr(X2APIC(APIC_EOI), 0);
    } else {
        MMIO(XAPIC + APIC_EOI) = 0;
    }
}

static void __attribute__((interrupt)) on_timer(struct interrupt_frame *frame) {
    (void)frame;
    timer_ticks = ticks();
    timer_came = true;
    eoi();
}

static void __attribute__((interrupt)) on_ipi(struct interrupt_frame *frame) {
    (void)frame;
    ipi_came = true;
    eoi();
}

/* Reading IIR takes the transmitter's interrupt back. */
static void __attribute__((interrupt)) on_uart(struct interrupt_frame *frame) {
    (void)frame;
    inb(UART_IIR);
    uart_came = true;
    eoi();
}

static void __attribute__((interrupt)) on_breakpoint(struct interrupt_frame *frame) {
    (void)frame;
}

/* Of the row ud2: RIP, what the CPU pushed last, goes past the instruction. */
static void __attribute__((interrupt)) on_undefined(struct interrupt_frame *frame) {
    *(volatile word *)frame += UD2_LENGTH;
}

static void __attribute__((interrupt)) on_spurious(struct interrupt_frame *frame) {
    (void)frame;
}

void interrupts_init(void) {
    descriptors_init();
    traps_init();
    set_gate(VECTOR_TIMER, KERNEL_CS, (word)on_timer, ACCESS_INTERRUPT_GATE, 0);
    set_gate(VECTOR_IPI, KERNEL_CS, (word)on_ipi, ACCESS_INTERRUPT_GATE, 0);
    set_gate(VECTOR_UART, KERNEL_CS, (word)on_uart, ACCESS_INTERRUPT_GATE, 0);
    set_gate(BP, KERNEL_CS, (word)on_breakpoint, ACCESS_INTERRUPT_GATE, 0);
    set_gate(UD, KERNEL_CS, (word)on_undefined, ACCESS_INTERRUPT_GATE, 0);
    set_gate(VECTOR_SPURIOUS, KERNEL_CS, (word)on_spurious, ACCESS_INTERRUPT_GATE, 0);
    outb(0x21, 0xff); /* both 8259s masked */
    outb(0xa1, 0xff);
}

const char *xapic_on(void) {
    if (x2) {
        return "the local APIC is in x2APIC mode already";
    }
    MMIO(XAPIC + APIC_SVR) = APIC_ENABLE | VECTOR_SPURIOUS;
    MMIO(XAPIC + APIC_TPR) = 0;
    MMIO(XAPIC + APIC_LVT_TIMER) = APIC_MASKED;
    MMIO(XAPIC + APIC_LVT_LINT0) = APIC_MASKED;
    MMIO(XAPIC + APIC_LVT_LINT1) = APIC_MASKED;
    return NULL;
}

void x2apic_here(void) {
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | X2APIC_ENABLE);
    wrmsr(X2APIC(APIC_SVR), APIC_ENABLE | VECTOR_SPURIOUS);
    wrmsr(X2APIC(APIC_TPR), 0);
    wrmsr(X2APIC(APIC_LVT_TIMER), APIC_MASKED);
    wrmsr(X2APIC(APIC_LVT_LINT0), APIC_MASKED);
    wrmsr(X2APIC(APIC_LVT_LINT1), APIC_MASKED);
}

const char *x2apic_on(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC)) {
        return "the CPU has no x2APIC";
    }
    if (!x2) {
        x2 = true;
        x2apic_here();
    }
    return NULL;
}
