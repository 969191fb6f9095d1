// Writes to pages of guests that the monitor has a copy of.
#ifndef PCANEL_PORT_WRITTEN_H
#define PCANEL_PORT_WRITTEN_H

#include <stdbool.h>
#include <stdint.h>

// No page is protected: what a soft reset leaves. Gives the mapping of written.c back.
void written_init(void);

// Deals with a page fault, if it is a write to a protected page: then true, and the instruction runs again.
bool written_fault(uint64_t address, uint64_t error_code);

// [hpa, size) is about to be written, or has been: as if instructions of this CPU did so.
void written_tell(uint64_t hpa, uint64_t size);

#endif
