/* Rows of memory that is no RAM, and of RAM that a policy watches. */
#include "bench.h"

#define POLICY_MMIO    0xc8000000u
#define DEVICE_PAGES   0xc8046000u /* the second page of a device */
#define DEVICE_PART    0xc8057100u /* a device of 256 bytes */
#define POLICY_MEMORY  0xc8001000u
#define NOBODYS_MEMORY 0xc8002000u
#define POLICY_RAM     0x00f00000u /* behind the image, before what page_first_touch uses */
#define HIDDEN_NOP     0x00f02000u /* functions, under breakpoints that this guest does not see */
#define HIDDEN_PUSH    0x00f03000u
#define CALL_RETURN    0x00f04000u
#define WATCHED        0x00f05000u /* a policy watches 8 bytes */
#define IOAPIC_SELECT  0xfec00000u
#define IOAPIC_WINDOW  0xfec00010u
#define IOAPIC_VERSION 1
#define IOAPIC_ENTRY   0x38 /* low half of the entry of pin 20 */
#define MASKED         0x10000u

static u32 directory[1024] __attribute__((aligned(4096))); /* 4-MiB pages, one to one */
static u64 pointers[4] __attribute__((aligned(32))); /* PAE's, to the directories of 64-bit mode */

static inline void call(word function) {
    asm volatile("call *%0" : : "r"(function) : "memory");
}

OPERATION(mmio_policy, (void)MMIO(POLICY_MMIO))
OPERATION(mmio_pages, (void)MMIO(DEVICE_PAGES))
OPERATION(mmio_part, (void)MMIO(DEVICE_PART))
OPERATION(memory_policy, (void)MMIO(POLICY_MEMORY))
OPERATION(memory_nobody, (void)MMIO(NOBODYS_MEMORY))
OPERATION(memory_nobody_write, MMIO(NOBODYS_MEMORY) = 0)
OPERATION(ram, (void)MMIO(POLICY_RAM))
OPERATION(hidden_nop, call(HIDDEN_NOP))
OPERATION(hidden_push, call(HIDDEN_PUSH))
OPERATION(call_return, call(CALL_RETURN))
OPERATION(write_beside, MMIO(WATCHED + 64) = i)
OPERATION(ioapic_read, (void)MMIO(IOAPIC_WINDOW))
OPERATION(ioapic_write, MMIO(IOAPIC_WINDOW) = MASKED)
OPERATION(ioapic_or, asm volatile("orl %1, %0" : "+m"(MMIO(IOAPIC_WINDOW)) : "r"(MASKED)))
OPERATION(ioapic_xchg, {
    u32 value = MASKED;
    asm volatile("xchgl %1, %0" : "+m"(MMIO(IOAPIC_WINDOW)), "+r"(value));
})
OPERATION(ioapic_cmpxchg, {
    u32 value = MASKED;
    asm volatile("cmpxchgl %2, %0" : "+m"(MMIO(IOAPIC_WINDOW)), "+a"(value) : "r"(MASKED));
})

static u32 prot32_cr3(void) {
    for (u32 i = 0; i < COUNT(directory); i++) {
        directory[i] = i << 22 | 0x83; /* present, writable, large */
    }
    return (u32)(word)directory;
}

static u32 pae_cr3(void) {
    const u64 *pml4 = (const u64 *)(read_cr3() & ~(word)0xfff);
    const u64 *pdpt = (const u64 *)(word)(pml4[0] & ~0xfffull);
    for (u32 i = 0; i < COUNT(pointers); i++) {
        pointers[i] = (pdpt[i] & ~0xfffull) | 1; /* other low bits are reserved here */
    }
    return (u32)(word)pointers;
}

#define LEGACY(name, cr3, cr4)                                                                     \
    static void name##_measure(u32 *samples, u32 rounds) {                                         \
        legacy_run(legacy_read, cr3, cr4, IOAPIC_WINDOW, samples, rounds);                         \
    }                                                                                              \
    static void name##_once(void) {                                                                \
        legacy_run(legacy_read_once, cr3, cr4, IOAPIC_WINDOW, NULL, 0);                            \
    }

LEGACY(ioapic_read_prot32, prot32_cr3(), CR4_PSE)
LEGACY(ioapic_read_pae, pae_cr3(), CR4_PAE)

/* push %rbp; pop %rbp; ret, and NOPs */
#define NOP_RET  0xc3909090u
#define PUSH_RET 0x90c35d55u

/* breakpoints=1: with the INT3 of a debugger outside that writes it into the guest's code. */
static void put_function(word gpa, u32 code) {
    MMIO(gpa) = option_number("breakpoints", 0) ? (code & ~0xffu) | 0xcc : code;
}

static const char *hidden_nop_begin(void) {
    put_function(HIDDEN_NOP, NOP_RET);
    return NULL;
}

static const char *hidden_push_begin(void) {
    put_function(HIDDEN_PUSH, PUSH_RET);
    return NULL;
}

static const char *call_return_begin(void) {
    MMIO(CALL_RETURN) = PUSH_RET;
    return NULL;
}

static const char *version_begin(void) {
    MMIO(IOAPIC_SELECT) = IOAPIC_VERSION;
    return NULL;
}

static const char *entry_begin(void) {
    MMIO(IOAPIC_SELECT) = IOAPIC_ENTRY;
    return NULL;
}

static const struct row memory_rows[] = {
    ROW(mmio_policy),
    ROW(mmio_pages),
    ROW(mmio_part),
    ROW(memory_policy),
    ROW(memory_nobody),
    ROW(memory_nobody_write),
    ROW(ram),
    ROW(hidden_nop, .begin = hidden_nop_begin),
    ROW(hidden_push, .begin = hidden_push_begin),
    ROW(call_return, .begin = call_return_begin),
    ROW(write_beside),
    ROW(ioapic_read, .begin = version_begin),
    ROW(ioapic_read_prot32, .begin = version_begin),
    ROW(ioapic_read_pae, .begin = version_begin),
    ROW(ioapic_write, .begin = entry_begin),
    ROW(ioapic_or, .begin = entry_begin),
    ROW(ioapic_xchg, .begin = entry_begin),
    ROW(ioapic_cmpxchg, .begin = entry_begin),
};
GROUP(memory);
