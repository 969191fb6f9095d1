/* IDT, exceptions (the end), the handlers of the rows, the local APIC in x2APIC mode. */
#include "apic.h"
#include "bench.h"

#define KERNEL_CS      8
#define INTERRUPT_GATE 0x8e
#define X2APIC(offset) (0x800 + ((offset) >> 4))
#define VECTORS        64

struct interrupt_frame;

extern const word exception_stubs[32];
void exception(u64 vector, u64 error, u64 ip) __attribute__((noreturn));

volatile u32 timer_ticks;
volatile bool timer_came, ipi_came;

static u64 idt[VECTORS * 2];

void exception(u64 vector, u64 error, u64 ip) {
    print("failed: exception ");
    print_number(vector);
    print(" error ");
    print_number(error);
    print(" at ");
    print_number(ip);
    print("\n");
    finish();
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

static void set_gate(u32 vector, word handler) {
    idt[2 * vector] = (handler & 0xffff) | KERNEL_CS << 16 | (u64)INTERRUPT_GATE << 40 |
                      (u64)(handler >> 16 & 0xffff) << 48;
    idt[2 * vector + 1] = handler >> 32;
}

void interrupts_init(void) {
    for (u32 vector = 0; vector < COUNT(exception_stubs); vector++) {
        set_gate(vector, exception_stubs[vector]);
    }
    set_gate(VECTOR_TIMER, (word)on_timer);
    set_gate(VECTOR_IPI, (word)on_ipi);
    set_gate(VECTOR_SPURIOUS, (word)on_spurious);
    struct table_register idtr = {sizeof(idt) - 1, (word)idt};
    asm volatile("lidt %0" : : "m"(idtr));
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
