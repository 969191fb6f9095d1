/* The excursion to real mode of the protected and 64-bit guests: code at LOW_CODE, called in 32-bit protected
 * mode without paging, that visits 16-bit protected, real and unreal mode and leaves what it found. */
#ifndef TESTS_LOW_H
#define TESTS_LOW_H

#define LOW_CODE    0x8000
#define LOW_RESULTS 0x9000
#define LOW_STACK   0x7c00
#define LOW_VECTOR  0x60 /* of the real-mode interrupt */
#define LOW_UNREAL  0x00a00000 /* what unreal mode reaches past 64 KiB */

#ifndef __ASSEMBLER__
#include "types.h"

struct low_results {
    u32 esp;
    u16 idt_limit;
    u32 idt_base;
    u16 pad;
    u32 protected_stack; /* what 16-bit protected mode popped */
    u32 msw; /* in real mode */
    u32 alias; /* a byte through another segment */
    u32 interrupts;
    u32 unreal; /* dword read back past 64 KiB */
    u32 reached;
} PACKED;
#endif
#endif
