// The port's share of physical memory. Everything else belongs to the monitor.
#ifndef PCANEL_PORT_MEMORY_H
#define PCANEL_PORT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t hpa, size;
} memory_block_t;

typedef struct {
    memory_block_t all; // one block that holds those below
    memory_block_t tables; // page tables for memory above 4 GiB
    memory_block_t exec; // machine code generated at run time
    memory_block_t disk; // the RAM file system
    memory_block_t heap_tables; // page tables for the heap and for themselves
    memory_block_t heap; // Python's heap
} memory_t;

extern memory_t memory;

// Chooses the block from the loader's memory map and its modules. False if no
// RAM range below 4 GiB is large enough.
bool memory_init(void);

uint64_t memory_image_size(void);
uint64_t memory_ram_end(void); // first address past all RAM

#endif
