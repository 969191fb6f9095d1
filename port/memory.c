// Reserves one block of RAM for the port: machine code, page tables, RAM disk, heap.
//
// The block lies as low as possible above the image, at a 2 MiB boundary, clear
// of all boot modules, so that the rest, for guests, stays in large pieces.
// Boot options (Multiboot command line) set the sizes: heap=16M, disk=8M, exec=8M.
#include <string.h>
#include "port/memory.h"
#include "port/multiboot.h"
#include "port/paging.h"
#include "port/x86.h"

#define MIB       0x100000ull
#define RAM_LIMIT (512 * PAGE_1G) // one PML4 entry

extern char image_start[], image_end[];

memory_t memory;

static uint64_t align_up(uint64_t value, uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

uint64_t memory_image_size(void) {
    return image_end - image_start;
}

uint64_t memory_ram_end(void) {
    uint64_t end = 0;
    for (unsigned i = 0; i < multiboot.ranges_count; i++) {
        const multiboot_range_t *range = &multiboot.ranges[i];
        if (range->type == MULTIBOOT_RAM && range->base + range->length > end) {
            end = range->base + range->length;
        }
    }
    return end < RAM_LIMIT ? end : RAM_LIMIT;
}

// Lowest free place for size bytes in [base, end), or 0.
static uint64_t place(uint64_t base, uint64_t end, uint64_t size) {
    uint64_t at = align_up(base, PAGE_2M);
    for (bool moved = true; moved;) {
        moved = false;
        for (unsigned i = 0; i < multiboot.modules_count; i++) {
            const multiboot_module_t *module = &multiboot.modules[i];
            if (at < module->hpa + module->size && module->hpa < at + size) {
                at = align_up(module->hpa + module->size, PAGE_2M);
                moved = true;
            }
        }
    }
    return at + size <= end ? at : 0;
}

static void carve(memory_block_t *block, uint64_t size, uint64_t *at) {
    *block = (memory_block_t){*at, size};
    *at += size;
}

// Boot modules named "file:" are copied to the disk; leave room to write as much again.
static uint64_t default_disk_size(void) {
    uint64_t size = 8 * MIB;
    for (unsigned i = 0; i < multiboot.modules_count; i++) {
        if (strncmp(multiboot.modules[i].string, "file:", 5) == 0) {
            size += 2 * align_up(multiboot.modules[i].size, MIB);
        }
    }
    return size;
}

bool memory_init(void) {
    uint64_t ram_end = memory_ram_end();
    uint64_t gibs = ram_end > FOUR_GIB ? align_up(ram_end - FOUR_GIB, PAGE_1G) / PAGE_1G : 0;
    uint64_t tables = align_up(gibs * PAGE_4K, PAGE_2M);
    uint64_t exec = align_up(multiboot_option("exec", 8 * MIB), PAGE_2M);
    uint64_t disk = align_up(multiboot_option("disk", default_disk_size()), PAGE_2M);
    uint64_t heap = align_up(multiboot_option("heap", 16 * MIB), PAGE_2M);
    uint64_t size = tables + exec + disk + heap;

    uint64_t best = 0;
    for (unsigned i = 0; i < multiboot.ranges_count; i++) {
        const multiboot_range_t *range = &multiboot.ranges[i];
        uint64_t base = range->base, end = range->base + range->length;
        if (range->type != MULTIBOOT_RAM || base >= FOUR_GIB) {
            continue;
        }
        if (base < (uintptr_t)image_end) {
            base = (uintptr_t)image_end;
        }
        if (end > FOUR_GIB) {
            end = FOUR_GIB;
        }
        uint64_t at = end > base ? place(base, end, size) : 0;
        if (at != 0 && (best == 0 || at < best)) {
            best = at;
        }
    }
    if (best == 0) {
        return false;
    }
    memory.all = (memory_block_t){best, size};
    carve(&memory.exec, exec, &best);
    carve(&memory.tables, tables, &best);
    carve(&memory.disk, disk, &best);
    uint64_t fine = heap / PAGE_2M * PAGE_4K;
    carve(&memory.heap_tables, fine, &best);
    carve(&memory.heap, heap - fine, &best);
    return true;
}
