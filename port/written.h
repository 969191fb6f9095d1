// Detects writes to guests' pages that the monitor has a copy of.
#ifndef PCANEL_PORT_WRITTEN_H
#define PCANEL_PORT_WRITTEN_H

#include <stdbool.h>
#include <stdint.h>

// Ends the protection of all pages and restores the mapping; once per heap.
void written_init(void);

// Handles a page fault if it is a write to a protected page: true, and the instruction is restarted.
bool written_fault(uint64_t address, uint64_t error_code);

// Reports a write to `size` bytes at hpa, past or to come, as a page fault would.
void written_tell(uint64_t hpa, uint64_t size);

#endif
