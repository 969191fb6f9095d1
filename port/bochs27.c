// Work-arounds for Bochs 2.7 (bochs27.h; docs/engines.md describes its bugs).
#include "port/bochs27.h"
#include "port/timer.h"
#include "port/vmxops.h"

#define PRIORITY_ALL (15) // task-priority class of the local APIC that lets no interrupt through

// RVI is the highest virtual interrupt that is pending. Host interrupts are held off where one stays pending after
// this entry: the guest cannot take it now, or there are several.
bool bochs27_hold(const vcpu_frame_t *f) {
    uint8_t rvi = f->virtual_apic != 0 ? vmx_get(GUEST_INTERRUPT_STATUS) : 0;
    if (rvi == 0) {
        return false;
    }
    const uint32_t *page = (const uint32_t *)(uintptr_t)f->virtual_apic;
    bool waits =
        !(f->rflags & RFLAGS_IF) || (vmx_get(VM_ENTRY_INTERRUPTION_INFORMATION) & INFO_VALID) ||
        (f->interruptibility & BLOCKING_BY_STI_MOV_SS) || rvi >> 4 <= page[APIC_PPR / 4] >> 4;
    for (uint32_t i = 0; i < 8 && !waits; i++) {
        uint32_t bits = page[APIC_IRR / 4 + 4 * i];
        waits = bits != 0 && (i != rvi >> 5 || bits != 1u << (rvi & 31));
    }
    if (waits) {
        op_set_cr8(PRIORITY_ALL);
    }
    return waits;
}

void bochs27_release(void) {
    op_set_cr8(0);
}

uint64_t bochs27_limit(const vcpu_frame_t *f, bool held, uint64_t left) {
    if ((f->rflags & RFLAGS_IF) && !held) {
        return left;
    }
    uint64_t most = tsc_hz / 1000 >> f->timer_shift; // a 16550's FIFO does not overrun in that
    return most < left ? most : left;
}
