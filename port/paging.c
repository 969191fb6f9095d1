// boot.S leaves the low 4 GiB mapped by writable 2 MiB pages. Here:
//  - the first 8 MiB get 4 KiB pages: page 0 and the stack guards are absent, text
//    and read-only data cannot be written (CR0.WP);
//  - Python's heap has 4 KiB pages, so that their dirty bits tell what was written;
//  - only text and the executable region can be executed;
//  - everything below 4 GiB that is not RAM is uncached (in addition to the MTRRs);
//  - RAM above 4 GiB, up to 512 GiB, is mapped by 2 MiB pages. Other addresses up
//    there stay absent, so a wild physical address faults;
//  - a page of a guest's RAM may be write-protected for a while (written.c).
// Source: SDM Vol. 3A, "4-Level Paging and 5-Level Paging".
#include <stdbool.h>
#include <stdint.h>
#include "port/memory.h"
#include "port/multiboot.h"
#include "port/paging.h"
#include "port/preempt.h"
#include "port/segments.h"
#include "port/x86.h"

#define FINE_END 0x800000ull // below it, 4 KiB pages

#define PIECE (64) // entries between two readings of the clock

extern uint64_t paging_pml4[512], paging_pdpt[512], paging_low_pd[4 * 512];
extern char image_start[], text_end[], rodata_end[], image_end[];
extern char boot_stack_guard[], ist_stacks[];

static uint64_t fine[FINE_END / PAGE_4K] __attribute__((aligned(4096)));

static bool is_ram(uint64_t base, uint64_t size) {
    for (unsigned i = 0; i < multiboot.ranges_count; i++) {
        const multiboot_range_t *range = &multiboot.ranges[i];
        if (range->type == MULTIBOOT_RAM && base < range->base + range->length &&
            range->base < base + size) {
            return true;
        }
    }
    return false;
}

static bool is_exec(uint64_t hpa) {
    return hpa - memory.exec.hpa < memory.exec.size;
}

static bool is_heap(uint64_t hpa) {
    return hpa - memory.heap_tables.hpa < memory.heap_tables.size + memory.heap.size;
}

// The heap's tables are contiguous, so that they are indexed as one.
static uint64_t *heap_entry(uint64_t hpa) {
    return (uint64_t *)memory.heap_tables.hpa + (hpa - memory.heap_tables.hpa) / PAGE_4K;
}

static uint64_t fine_entry(uint64_t hpa) {
    if (hpa == 0 || hpa == (uintptr_t)boot_stack_guard) {
        return 0;
    }
    for (unsigned i = 0; i < IST_COUNT; i++) {
        if (hpa == (uintptr_t)ist_stacks + i * (PAGE_4K + IST_STACK_SIZE)) {
            return 0;
        }
    }
    if (hpa >= (uintptr_t)image_start && hpa < (uintptr_t)text_end) {
        return hpa | PTE_P;
    }
    if (hpa >= (uintptr_t)text_end && hpa < (uintptr_t)rodata_end) {
        return hpa | PTE_P | PTE_XD;
    }
    if (is_exec(hpa)) {
        return hpa | PTE_P | PTE_RW;
    }
    if (hpa >= VGA_MEMORY && hpa < OPTION_ROMS) {
        return hpa | PTE_P | PTE_RW | PTE_XD | PTE_PCD | PTE_PWT;
    }
    return hpa | PTE_P | PTE_RW | PTE_XD;
}

static void map_low(void) {
    for (uint64_t hpa = 0; hpa < FINE_END; hpa += PAGE_4K) {
        fine[hpa / PAGE_4K] = fine_entry(hpa);
    }
    for (uint64_t hpa = 0; hpa < FOUR_GIB; hpa += PAGE_2M) {
        uint64_t *entry = &paging_low_pd[hpa / PAGE_2M];
        if (is_heap(hpa)) {
            uint64_t *table = heap_entry(hpa);
            for (unsigned i = 0; i < 512; i++) {
                table[i] = (hpa + i * PAGE_4K) | PTE_P | PTE_RW | PTE_XD;
            }
            *entry = (uintptr_t)table | PTE_P | PTE_RW;
        } else if (hpa < FINE_END) {
            *entry = (uintptr_t)&fine[hpa / PAGE_4K] | PTE_P | PTE_RW;
        } else if (is_exec(hpa)) {
            *entry = hpa | PTE_P | PTE_RW | PTE_PS;
        } else if (is_ram(hpa, PAGE_2M)) {
            *entry = hpa | PTE_P | PTE_RW | PTE_PS | PTE_XD;
        } else {
            *entry = hpa | PTE_P | PTE_RW | PTE_PS | PTE_XD | PTE_PCD | PTE_PWT;
        }
    }
}

static void map_high(void) {
    uint64_t *table = (uint64_t *)memory.tables.hpa;
    for (uint64_t hpa = FOUR_GIB; hpa < memory_ram_end(); hpa += PAGE_1G) {
        if (!is_ram(hpa, PAGE_1G)) {
            continue;
        }
        for (unsigned i = 0; i < 512; i++) {
            uint64_t page = hpa + i * PAGE_2M;
            table[i] = is_ram(page, PAGE_2M) ? page | PTE_P | PTE_RW | PTE_PS | PTE_XD : 0;
        }
        paging_pdpt[hpa / PAGE_1G] = (uintptr_t)table | PTE_P | PTE_RW;
        table += 512;
    }
}

void paging_init(void) {
    map_low();
    map_high();
    write_cr3(read_cr3());
}

uint64_t *paging_directory(uint64_t hpa) {
    if (hpa < FOUR_GIB) {
        return &paging_low_pd[hpa / PAGE_2M];
    }
    uint64_t entry = hpa / PAGE_1G < 512 ? paging_pdpt[hpa / PAGE_1G] : 0;
    return entry & PTE_P ? (uint64_t *)(entry & PTE_ADDRESS) + hpa / PAGE_2M % 512 : NULL;
}

void paging_clean(void) {
    uint64_t *end = heap_entry(memory.heap.hpa + memory.heap.size);
    uint64_t *entry = heap_entry(memory.heap.hpa);
    while (entry < end) {
        uint64_t *piece = end - entry > PIECE ? entry + PIECE : end;
        for (; entry < piece; entry++) {
            *entry &= ~PTE_D;
        }
        preempt_look();
    }
    write_cr3(read_cr3());
}

// Few pages are dirty: most entries are tested eight at a time.
uint64_t paging_take_dirty(uint64_t hpa, uint64_t end) {
    uint64_t *entry = heap_entry(hpa);
    uint64_t *last = heap_entry(end - 1) + 1;
    while (last - entry >= 8 && !((entry[0] | entry[1] | entry[2] | entry[3] | entry[4] | entry[5] |
                                      entry[6] | entry[7]) &
                                    PTE_D)) {
        entry += 8;
    }
    while (entry < last && !(*entry & PTE_D)) {
        entry++;
    }
    if (entry == last) {
        return end;
    }
    *entry &= ~PTE_D;
    hpa = memory.heap_tables.hpa + (entry - heap_entry(memory.heap_tables.hpa)) * PAGE_4K;
    __asm volatile("invlpg (%0)" : : "r"(hpa) : "memory");
    return hpa;
}
