// Local APIC (x2APIC MSRs where the CPU has them, MMIO otherwise) and the ISA
// inputs of the I/O APIC. The two 8259s are moved to unused vectors and masked.
//
// Limit: the I/O APIC is taken at its customary address and ISA interrupts at the
// inputs of the same number, which holds for the serial ports of every PC known
// to us.
// Source: SDM Vol. 3A, "Advanced Programmable Interrupt Controller"; 82093AA I/O
// APIC data sheet; 8259A data sheet.
#include "port/apic.h"
#include "port/trap.h"
#include "port/x86.h"

#define X2APIC_MSR(offset) (X2APIC_MSRS + ((offset) >> 4))
#define ICW4_8086          (0x01)

static bool x2apic;

uint32_t apic_read(unsigned offset) {
    if (x2apic) {
        return rdmsr(X2APIC_MSR(offset));
    }
    return *(volatile uint32_t *)(APIC_BASE + offset);
}

void apic_write(unsigned offset, uint32_t value) {
    if (x2apic) {
        wrmsr(X2APIC_MSR(offset), value);
    } else {
        *(volatile uint32_t *)(APIC_BASE + offset) = value;
    }
}

void apic_eoi(void) {
    apic_write(APIC_EOI, 0);
}

bool apic_in_service(unsigned vector) {
    return apic_read(APIC_ISR) >> vector & 1;
}

static uint32_t ioapic_read(unsigned index) {
    *(volatile uint32_t *)IOAPIC_BASE = index;
    return *(volatile uint32_t *)(IOAPIC_BASE + IOAPIC_IOWIN);
}

static void ioapic_write(unsigned index, uint32_t value) {
    *(volatile uint32_t *)IOAPIC_BASE = index;
    *(volatile uint32_t *)(IOAPIC_BASE + IOAPIC_IOWIN) = value;
}

void ioapic_route(unsigned irq, unsigned entry) {
    uint32_t id = x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
    ioapic_write(IOAPIC_REDIRECTION + 2 * irq + 1, id << 24);
    ioapic_write(IOAPIC_REDIRECTION + 2 * irq, entry);
}

static void i8259_disable(void) {
    outb(PC_PIC_MASTER, PIC_ICW1 | PIC_ICW1_IC4); // edge, cascade
    outb(PC_PIC_SLAVE, PIC_ICW1 | PIC_ICW1_IC4);
    outb(PC_PIC_MASTER + 1, 0x20); // ICW2: vectors 0x20 and 0x28
    outb(PC_PIC_SLAVE + 1, 0x28);
    outb(PC_PIC_MASTER + 1, PIC_CASCADE); // ICW3: a bit here, the input's number there
    outb(PC_PIC_SLAVE + 1, 2);
    outb(PC_PIC_MASTER + 1, ICW4_8086);
    outb(PC_PIC_SLAVE + 1, ICW4_8086);
    outb(PC_PIC_MASTER + 1, 0xff); // OCW1: everything masked
    outb(PC_PIC_SLAVE + 1, 0xff);
}

void apic_init(void) {
    i8259_disable();
    uint64_t base = rdmsr(IA32_APIC_BASE) | APIC_BASE_ENABLE;
    if (cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC) {
        wrmsr(IA32_APIC_BASE, base);
        wrmsr(IA32_APIC_BASE, base | APIC_BASE_EXTD);
        x2apic = true;
    } else {
        wrmsr(IA32_APIC_BASE, (base & 0xfff) | APIC_BASE);
    }
    apic_write(APIC_LVT_LINT0, APIC_LVT_MASKED);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_SVR, APIC_SVR_ENABLED | TRAP_SPURIOUS);

    unsigned inputs = (ioapic_read(IOAPIC_VER) >> 16 & 0xff) + 1;
    for (unsigned i = 0; i < inputs; i++) {
        ioapic_write(IOAPIC_REDIRECTION + 2 * i, IOAPIC_MASKED);
    }
}
