/* The local APIC (SDM Vol. 3A, "Advanced Programmable Interrupt Controller"). */
#include "apic.h"

#include "test.h"

#define MMIO               0xfee00000u
#define X2APIC_MSR(offset) (0x800 + ((offset) >> 4))

bool apic_is_x2(void) {
    return rdmsr(IA32_APIC_BASE) & X2APIC_ENABLE;
}

u32 apic_read(u32 offset) {
    if (apic_is_x2()) {
        return rdmsr(X2APIC_MSR(offset));
    }
    return *(volatile u32 *)(word)(MMIO + offset);
}

void apic_write(u32 offset, u32 value) {
    if (apic_is_x2()) {
        wrmsr(X2APIC_MSR(offset), value);
    } else {
        *(volatile u32 *)(word)(MMIO + offset) = value;
    }
}

void apic_enable(void) {
    apic_write(APIC_SVR, APIC_ENABLE | VECTOR_SPURIOUS);
    apic_write(APIC_TPR, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED);
    apic_write(APIC_LVT_LINT0, APIC_EXTINT);
    apic_write(APIC_LVT_LINT1, APIC_MASKED | APIC_MODE_NMI);
    apic_write(APIC_LVT_ERROR, APIC_MASKED);
}

u32 apic_id(void) {
    return apic_is_x2() ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
}

void apic_send(u32 icr, u32 destination) {
    if (apic_is_x2()) {
        wrmsr(X2APIC_MSR(APIC_ICR), icr | (u64)destination << 32);
        return;
    }
    apic_write(APIC_ICR_HIGH, destination << 24);
    apic_write(APIC_ICR, icr);
    while (apic_read(APIC_ICR) & APIC_PENDING) {
        pause();
    }
}

bool apic_bit(u32 offset, u32 vector) {
    return apic_read(offset + (vector / 32) * 0x10) >> (vector % 32) & 1;
}
