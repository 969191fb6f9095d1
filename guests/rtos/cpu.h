/* Ports, flags and counters of the CPU. */
#ifndef RTOS_CPU_H
#define RTOS_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define FLAGS_IF   0x200u
#define CR0_MP     0x2u
#define CR0_EM     0x4u
#define CR0_TS     0x8u
#define CR0_NE     0x20u
#define CR4_OSFXSR 0x200u

static inline u8 inb(u16 port) {
    u8 value;
    asm volatile("inb %1, %0" : "=a"(value) : "d"(port));
    return value;
}

static inline void outb(u16 port, u8 value) {
    asm volatile("outb %0, %1" : : "a"(value), "d"(port) : "memory");
}

static inline void outw(u16 port, u16 value) {
    asm volatile("outw %0, %1" : : "a"(value), "d"(port) : "memory");
}

static inline u64 rdtsc(void) {
    u64 value;
    asm volatile("rdtsc" : "=A"(value) : : "memory");
    return value;
}

static inline u32 interrupts_off(void) {
    u32 flags;
    asm volatile("pushfl; popl %0; cli" : "=r"(flags) : : "memory");
    return flags;
}

static inline void interrupts_on(void) {
    asm volatile("sti" : : : "memory");
}

static inline void interrupts_restore(u32 flags) {
    if (flags & FLAGS_IF) {
        interrupts_on();
    }
}

static inline u32 read_cr0(void) {
    u32 value;
    asm volatile("movl %%cr0, %0" : "=r"(value));
    return value;
}

static inline void write_cr0(u32 value) {
    asm volatile("movl %0, %%cr0" : : "r"(value) : "memory");
}

/* Quotient of a 64-bit number; there is no compiler library here. */
static inline u64 divide(u64 number, u32 divisor) {
    u32 high = number >> 32, low = number, rest = high % divisor;
    high /= divisor;
    asm("divl %2" : "+a"(low), "+d"(rest) : "r"(divisor));
    return (u64)high << 32 | low;
}

#endif
