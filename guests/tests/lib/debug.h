/* Debug registers (SDM Vol. 3B, "Debug Registers"). */
#ifndef TESTS_DEBUG_H
#define TESTS_DEBUG_H

#include "types.h"

#define DR6_B0      0x1u
#define DR6_BD      0x2000u
#define DR6_BS      0x4000u
#define DR7_RESET   0x400u
#define DR7_L0      0x1u
#define DR7_GD      0x2000u
#define DR7_WRITE_4 0xd0000u /* breakpoint 0: data writes, four bytes */

#define DEFINE_DR(n)                                                                               \
    static inline word read_dr##n(void) {                                                          \
        word value;                                                                                \
        asm volatile("mov %%db" #n ", %0" : "=r"(value));                                          \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_dr##n(word value) {                                                   \
        asm volatile("mov %0, %%db" #n : : "r"(value) : "memory");                                 \
    }
DEFINE_DR(0)
DEFINE_DR(1)
DEFINE_DR(2)
DEFINE_DR(3)
DEFINE_DR(6)
DEFINE_DR(7)

#endif
