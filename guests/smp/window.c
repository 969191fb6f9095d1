/* The window's page tables. */
#include "window.h"

#include "cpu.h"

static __attribute__((aligned(PAGE))) volatile u64 pdpt[512], directory[512];
__attribute__((aligned(PAGE))) volatile u64 window_ptes[512];
__attribute__((aligned(PAGE))) u8 window_frames[FRAMES][PAGE];

void window_init(void) {
    volatile u64 *pml4 = (volatile u64 *)(read_cr3() & ~0xfffull);
    for (u32 frame = 0; frame < FRAMES; frame++) {
        *(volatile u32 *)window_frames[frame] = frame;
        window_ptes[frame] = PTE_FOR(frame);
    }
    directory[0] = (word)window_ptes | PTE_P | PTE_W;
    pdpt[0] = (word)directory | PTE_P | PTE_W;
    pml4[WINDOW_AT >> 39] = (word)pdpt | PTE_P | PTE_W;
}
