// Local APIC and I/O APIC of the host.
#ifndef PCANEL_PORT_APIC_H
#define PCANEL_PORT_APIC_H

#include <stdbool.h>
#include <stdint.h>

#include "shared_constants.h" // offsets of registers (vmm/devices/lapic_registers.py, ioapic.py)

#define APIC_LVT_TSC_DEADLINE (APIC_TIMER_TSC_DEADLINE << 17)

void apic_init(void);
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
void apic_eoi(void);
// Whether the interrupt of a vector below 32 is in service: delivered, without an EOI.
bool apic_in_service(unsigned vector);

// Routes a pin of the I/O APIC (active high) to this CPU. entry: vector, IOAPIC_LEVEL, IOAPIC_MASKED.
void ioapic_route(unsigned irq, unsigned entry);

#endif
