// The host's page tables: all RAM and the low 4 GiB, at their own addresses.
#ifndef PCANEL_PORT_PAGING_H
#define PCANEL_PORT_PAGING_H

#include <stdbool.h>
#include <stdint.h>

void paging_init(void);

// Forgets which pages of the heap have been written.
void paging_clean(void);

// Whether the heap's page of 4 KiB at hpa has been written since, and forgets that.
bool paging_take_dirty(uint64_t hpa);

#endif
