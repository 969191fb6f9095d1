// The host's page tables: all RAM and the low 4 GiB, at their own addresses.
#ifndef PCANEL_PORT_PAGING_H
#define PCANEL_PORT_PAGING_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_4K  0x1000ull
#define PAGE_2M  0x200000ull
#define PAGE_1G  0x40000000ull
#define FOUR_GIB 0x100000000ull

void paging_init(void);

// The entry of the 2 MiB page that hpa is in, or of the table in its place; NULL: nothing is mapped there.
uint64_t *paging_directory(uint64_t hpa);

// Clears the dirty bits of the heap's pages. Guests may preempt it; their writes may then be lost as well.
void paging_clean(void);

// Finds the heap's first dirty page of 4 KiB from hpa on and clears its dirty bit; `end`: there is none below `end`.
uint64_t paging_take_dirty(uint64_t hpa, uint64_t end);

#endif
