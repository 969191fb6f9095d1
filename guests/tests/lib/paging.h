/* Page tables of the harness.
 *
 * The first 16 MiB and the local and I/O APIC's pages are mapped one to one, supervisor only. Above TEST_VA lies a window for
 * tests: WINDOW_PAGES 4-KiB pages, mapped as tests like, and behind them one large page. In PROT32 the
 * tables exist but paging is off until paging_on().
 */
#ifndef TESTS_PAGING_H
#define TESTS_PAGING_H

#include "types.h"

#if PROT32
typedef u32 pte_t;
#define LARGE_BYTES 0x400000u
#else
typedef u64 pte_t;
#define LARGE_BYTES 0x200000u
#endif

#define PTE_P   0x1u
#define PTE_W   0x2u
#define PTE_U   0x4u
#define PTE_PWT 0x8u
#define PTE_PCD 0x10u
#define PTE_A   0x20u
#define PTE_D   0x40u
#define PTE_PS  0x80u
#define PTE_NX  (1ull << 63)

/* Page-fault error code. */
#define PF_P    0x1u
#define PF_W    0x2u
#define PF_U    0x4u
#define PF_RSVD 0x8u
#define PF_I    0x10u
#define PF_PK   0x20u

#define PAGE         4096u
#define TEST_VA      0x40000000u
#define LARGE_VA     (TEST_VA + LARGE_BYTES)
#define WINDOW_PAGES 8
#define WINDOW_USER  7 /* this page of the window is the user page's */

/* Entries of the window: pages, the table over them, the large page. */
pte_t *window_pte(u32 page);
pte_t *window_pde(void);
pte_t *large_pde(void);

/* Frames for the window, distinct and cleared by window_reset(), which also maps page N of the window to
 * frame N, writable, supervisor, and flushes. */
u8 *window_frame(u32 page);
void window_reset(void);

/* A window page's or the large page's address. */
#define WINDOW(page) ((u8 *)(word)(TEST_VA + (page)*PAGE))

void paging_init(void);
void paging_on(void);
void paging_off(void);
word paging_root(void);

/* The user page's address under the current paging. */
u8 *user_address(void);

static inline void invlpg(const volatile void *gva) {
    asm volatile("invlpg %0" : : "m"(*(const volatile u8 *)gva) : "memory");
}

#if PAE
extern u64 pdpt[4];
#endif

#endif
