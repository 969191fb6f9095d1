/* The IDT, the 8259 pair, and where every interrupt and exception arrives. */
#include "kernel.h"
#include "print.h"
#include "uart.h"

#define VECTORS      48
#define IRQS         16
#define PIC_MASTER   0x20
#define PIC_SLAVE    0xa0
#define PIC_EOI      0x20
#define PIC_READ_ISR 0x0b
#define NM           7

struct frame {
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector, error, eip, cs, eflags;
};

extern const u32 stubs[VECTORS];
static u64 idt[VECTORS];
static irq_handler handlers[IRQS];
static u32 spurious;
static u32 depth; /* handlers that have begun and not ended */

void interrupt_entry(struct frame *frame, u64 entered);

bool in_interrupt(void) {
    return depth;
}

void irq_connect(u32 irq, irq_handler handler) {
    u32 flags = interrupts_off();
    handlers[irq] = handler;
    u16 port = (irq < 8 ? PIC_MASTER : PIC_SLAVE) + 1;
    outb(port, inb(port) & ~(1u << (irq & 7)));
    if (irq >= 8) {
        outb(PIC_MASTER + 1, inb(PIC_MASTER + 1) & ~4u);
    }
    interrupts_restore(flags);
}

void interrupts_init(void) {
    for (u32 vector = 0; vector < VECTORS; vector++) {
        u32 stub = stubs[vector];
        idt[vector] = (stub & 0xffff) | 8ull << 16 | 0x8e00ull << 32 | (u64)(stub >> 16) << 48;
    }
    struct __attribute__((packed)) {
        u16 limit;
        u32 base;
    } idtr = {sizeof(idt) - 1, (u32)idt};
    asm volatile("lidt %0" : : "m"(idtr));

    outb(PIC_MASTER, 0x11); /* ICW1: edge-triggered, cascade, ICW4 follows */
    outb(PIC_SLAVE, 0x11);
    outb(PIC_MASTER + 1, VECTOR_IRQ);
    outb(PIC_SLAVE + 1, VECTOR_IRQ + 8);
    outb(PIC_MASTER + 1, 4);
    outb(PIC_SLAVE + 1, 2);
    outb(PIC_MASTER + 1, 1);
    outb(PIC_SLAVE + 1, 1);
    outb(PIC_MASTER + 1, 0xff);
    outb(PIC_SLAVE + 1, 0xff);
}

/* IRQ7 and IRQ15 may be spurious: then their bit in the ISR is clear, and there is no EOI for them. */
static bool is_spurious(u32 irq) {
    if ((irq & 7) != 7) {
        return false;
    }
    u16 port = irq < 8 ? PIC_MASTER : PIC_SLAVE;
    outb(port, PIC_READ_ISR);
    if (inb(port) & 0x80) {
        return false;
    }
    spurious++;
    if (irq >= 8) {
        outb(PIC_MASTER, PIC_EOI);
    }
    return true;
}

static void __attribute__((noreturn)) fatal(const struct frame *frame) {
    struct task *self = task_self();
    uart_poll_mode();
    print("\nexception %u, error %x, in %s\n", frame->vector, frame->error,
        self ? self->name : "start");
    print("eip %x eflags %x eax %x ebx %x ecx %x edx %x\n", frame->eip, frame->eflags, frame->eax,
        frame->ebx, frame->ecx, frame->edx);
    print("esi %x edi %x ebp %x esp %x\n", frame->esi, frame->edi, frame->ebp, frame->esp + 20);
    for (;;) {
        asm volatile("cli; hlt");
    }
}

/* `entered` is the time stamp at the stub. Handlers run with interrupts on: the 8259s let those through that go
 * before this one, the tick before all. A switch to a task that a handler made ready happens at the end of the
 * outermost one, on the interrupted task's stack. */
void interrupt_entry(struct frame *frame, u64 entered) {
    if (frame->vector < VECTOR_IRQ) {
        if (frame->vector == NM && fpu_load()) {
            return;
        }
        fatal(frame);
    }
    u32 irq = frame->vector - VECTOR_IRQ;
    if (is_spurious(irq)) {
        return;
    }
    depth++;
    if (handlers[irq]) {
        interrupts_on();
        handlers[irq](entered);
        interrupts_off();
    }
    /* Behind the handler, so that an edge which the handler itself takes back does not end as a spurious one. */
    if (irq >= 8) {
        outb(PIC_SLAVE, PIC_EOI);
    }
    outb(PIC_MASTER, PIC_EOI);
    if (--depth == 0) {
        charge_interrupt(rdtsc() - entered);
        schedule();
    }
}
