/* IDT, exceptions (the end), the handlers of the rows, the local APIC in x2APIC mode. */
#include "apic.h"
#include "bench.h"
#include "descriptors.h"

#define X2APIC(offset) (0x800 + ((offset) >> 4))

struct interrupt_frame;

void trap_entry(const struct frame *frame);

volatile u32 timer_ticks;
volatile bool timer_came, ipi_came;

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

static void __attribute__((interrupt)) on_timer(struct interrupt_frame *frame) {
    (void)frame;
    timer_ticks = ticks();
    timer_came = true;
    wrmsr(X2APIC(APIC_EOI), 0);
}

static void __attribute__((interrupt)) on_ipi(struct interrupt_frame *frame) {
    (void)frame;
    ipi_came = true;
    wrmsr(X2APIC(APIC_EOI), 0);
}

static void __attribute__((interrupt)) on_spurious(struct interrupt_frame *frame) {
    (void)frame;
}

void interrupts_init(void) {
    descriptors_init();
    traps_init();
    set_gate(VECTOR_TIMER, KERNEL_CS, (word)on_timer, ACCESS_INTERRUPT_GATE, 0);
    set_gate(VECTOR_IPI, KERNEL_CS, (word)on_ipi, ACCESS_INTERRUPT_GATE, 0);
    set_gate(VECTOR_SPURIOUS, KERNEL_CS, (word)on_spurious, ACCESS_INTERRUPT_GATE, 0);
    outb(0x21, 0xff); /* both 8259s masked */
    outb(0xa1, 0xff);
}

const char *x2apic_on(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC)) {
        return "the CPU has no x2APIC";
    }
    if (!apic_is_x2()) {
        wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | X2APIC_ENABLE);
        wrmsr(X2APIC(APIC_SVR), APIC_ENABLE | VECTOR_SPURIOUS);
        wrmsr(X2APIC(APIC_TPR), 0);
        wrmsr(X2APIC(APIC_LVT_TIMER), APIC_MASKED);
        wrmsr(X2APIC(APIC_LVT_LINT0), APIC_MASKED);
        wrmsr(X2APIC(APIC_LVT_LINT1), APIC_MASKED);
    }
    return NULL;
}

bool apic_is_x2(void) {
    return rdmsr(IA32_APIC_BASE) & X2APIC_ENABLE;
}
