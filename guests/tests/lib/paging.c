/* Page tables of the harness (SDM Vol. 3A, "Paging"). */
#include "paging.h"

#include "test.h"
#include "user.h"

#define ENTRIES        (PAGE / sizeof(pte_t))
#define TABLE(name)    static __attribute__((aligned(PAGE))) pte_t name[ENTRIES]
#define RWU            (PTE_P | PTE_W | PTE_U)
#define LINKED(table)  ((word)(table) | RWU)
#define IDENTITY_BYTES 0x1000000u
#define APICS          0xfec00000u /* I/O APIC here, local APIC 2 MiB on */

TABLE(window);
static __attribute__((aligned(PAGE))) u8 frames[WINDOW_PAGES][PAGE];

#if PROT32
TABLE(directory);
#define DIRECTORY(va) (&directory[(va) >> 22])
#else
static __attribute__((aligned(PAGE))) pte_t directories[4][ENTRIES];
#define DIRECTORY(va) (&directories[(va) >> 30][(va) >> 21 & 511])
#if PAE
__attribute__((aligned(32))) u64 pdpt[4];
#else
TABLE(pml4);
TABLE(pdpt);
#endif
#endif

pte_t *window_pte(u32 page) {
    return &window[page];
}

pte_t *window_pde(void) {
    return DIRECTORY(TEST_VA);
}

pte_t *large_pde(void) {
    return DIRECTORY(LARGE_VA);
}

u8 *window_frame(u32 page) {
    return frames[page];
}

void window_reset(void) {
    *window_pde() = LINKED(window);
    for (u32 page = 0; page < WINDOW_PAGES; page++) {
        for (u32 byte = 0; byte < PAGE; byte++) {
            frames[page][byte] = 0;
        }
        window[page] = (word)frames[page] | PTE_P | PTE_W;
    }
    window[WINDOW_USER] = (word)user_page | RWU;
    write_cr3(read_cr3());
}

word paging_root(void) {
#if PROT32
    return (word)directory;
#elif PAE
    return (word)pdpt;
#else
    return (word)pml4;
#endif
}

void paging_init(void) {
    for (u32 gpa = 0; gpa < IDENTITY_BYTES; gpa += LARGE_BYTES) {
        *DIRECTORY(gpa) = gpa | PTE_P | PTE_W | PTE_PS;
    }
    for (u32 half = 0; half < 2; half++) {
        u32 gpa = (APICS + half * 0x200000u) & ~(LARGE_BYTES - 1);
        *DIRECTORY(gpa) = gpa | PTE_P | PTE_W | PTE_PS | PTE_PCD | PTE_PWT;
    }
#if !PROT32
    for (u32 gib = 0; gib < 4; gib++) {
        pdpt[gib] = PAE ? (word)directories[gib] | PTE_P : LINKED(directories[gib]);
    }
#endif
#if LONG64
    pml4[0] = LINKED(pdpt);
#endif
    window_reset();
#if LONG64
    write_cr3(paging_root());
#elif PAE
    paging_on();
#endif
}

void paging_on(void) {
#if !LONG64
    write_cr4(read_cr4() | (PAE ? CR4_PAE : CR4_PSE));
    write_cr3(paging_root());
    write_cr0(read_cr0() | CR0_PG);
#endif
}

void paging_off(void) {
#if !LONG64
    write_cr0(read_cr0() & ~CR0_PG);
    write_cr4(read_cr4() & ~(CR4_PAE | CR4_PSE));
#endif
}

u8 *user_address(void) {
    return read_cr0() & CR0_PG ? WINDOW(WINDOW_USER) : user_page;
}
