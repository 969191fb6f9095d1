/* Pages of 4 KiB at WINDOW, in tables that all CPUs share. */
#ifndef SMP_WINDOW_H
#define SMP_WINDOW_H

#include "paging.h"

#define WINDOW_AT     0x8000000000ull /* behind the first 512 GiB */
#define PAGE_AT(page) ((volatile u32 *)(WINDOW_AT + (page)*PAGE))
#define FRAMES        8

/* Maps page N to frame N, writable. */
void window_init(void);
extern volatile u64 window_ptes[512];
extern u8 window_frames[FRAMES][PAGE];

#define PTE_FOR(frame) ((word)window_frames[frame] | PTE_P | PTE_W)

#endif
