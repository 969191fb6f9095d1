/* What the machine's tables say of its processors. */
#ifndef SMP_TABLES_H
#define SMP_TABLES_H

#include "types.h"

/* Enabled processors in ACPI's MADT, and in the MP table of the MultiProcessor Specification; 0 where there is no such
 * table, or where an APIC ID is not the processor's number. */
u32 madt_cpus(void);
u32 mp_cpus(void);

#endif
