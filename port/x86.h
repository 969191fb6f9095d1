// Instructions without a C equivalent, and the bits of control registers.
// Source: SDM Vol. 2 for each instruction, Vol. 3A "Control Registers".
#ifndef PCANEL_PORT_X86_H
#define PCANEL_PORT_X86_H

#include <stdbool.h>
#include <stdint.h>

#include "shared_constants.h" // bits of control registers, MSRs (vmm/vtx/x86.py)

static inline void outb(uint16_t port, uint8_t value) {
    __asm volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outw(uint16_t port, uint16_t value) {
    __asm volatile("outw %0, %1" : : "a"(value), "Nd"(port));
}
static inline void outl(uint16_t port, uint32_t value) {
    __asm volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}
static inline uint8_t inb(uint16_t port) {
    uint8_t value;
    __asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint16_t inw(uint16_t port) {
    uint16_t value;
    __asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}
static inline uint32_t inl(uint16_t port) {
    uint32_t value;
    __asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

typedef struct {
    uint32_t eax, ebx, ecx, edx;
} cpuid_t;

static inline cpuid_t cpuid(uint32_t leaf, uint32_t subleaf) {
    cpuid_t r;
    __asm volatile("cpuid"
                   : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                   : "a"(leaf), "c"(subleaf));
    return r;
}
static inline uint64_t rdmsr(uint32_t msr) {
    uint32_t low, high;
    __asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
    return (uint64_t)high << 32 | low;
}
static inline void wrmsr(uint32_t msr, uint64_t value) {
    __asm volatile("wrmsr"
                   :
                   : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
}
static inline uint64_t rdtsc(void) {
    uint32_t low, high;
    __asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

// a * b / c by way of 128 bits; the quotient must fit in 64 (#DE otherwise).
static inline uint64_t mul_div(uint64_t a, uint64_t b, uint64_t c) {
    uint64_t low, high, quotient, remainder;
    __asm("mulq %3" : "=a"(low), "=d"(high) : "a"(a), "rm"(b));
    __asm("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "rm"(c));
    return quotient;
}

static inline uint64_t irq_save(void) {
    uint64_t flags;
    __asm volatile("pushfq; popq %0; cli" : "=r"(flags) : : "memory");
    return flags;
}
static inline void irq_restore(uint64_t flags) {
    if (flags & RFLAGS_IF) {
        __asm volatile("sti" : : : "memory");
    }
}
static inline void irq_disable(void) {
    __asm volatile("cli" : : : "memory");
}
static inline void irq_enable(void) {
    __asm volatile("sti" : : : "memory");
}
// STI holds interrupts off for one more instruction, so no wake-up is missed.
static inline void irq_enable_and_halt(void) {
    __asm volatile("sti; hlt" : : : "memory");
}

#define DEFINE_CR(n)                                                                               \
    static inline uint64_t read_cr##n(void) {                                                      \
        uint64_t value;                                                                            \
        __asm volatile("mov %%cr" #n ", %0" : "=r"(value) : : "memory");                           \
        return value;                                                                              \
    }                                                                                              \
    static inline void write_cr##n(uint64_t value) {                                               \
        __asm volatile("mov %0, %%cr" #n : : "r"(value) : "memory");                               \
    }
DEFINE_CR(0)
DEFINE_CR(2)
DEFINE_CR(3)
DEFINE_CR(4)
DEFINE_CR(8)

#endif
