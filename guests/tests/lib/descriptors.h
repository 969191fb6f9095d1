/* GDT, IDT and TSS of the harness. */
#ifndef TESTS_DESCRIPTORS_H
#define TESTS_DESCRIPTORS_H

#define KERNEL_CS   0x08
#define KERNEL_DS   0x10
#define USER_CS     0x1b
#define USER_DS     0x23
#define SEL_TSS     0x28 /* two slots in 64-bit mode, as every system descriptor */
#define SEL_SCRATCH 0x38 /* a test's own, two slots */
#define SEL_TASK    0x48 /* the second task */
#define SEL_DF_TASK 0x50 /* the task of the double fault */
#define SEL_CODE16  0x58
#define SEL_DATA16  0x60
#define SEL_CODE64  0x68
#define SEL_CODE32  0x70
#define SEL_GATE    0x88
#define SEL_DATA32  0x98
#define GDT_SLOTS   20

#ifndef __ASSEMBLER__
#include "types.h"

/* Access bytes: present, DPL 0. */
#define ACCESS_CODE           0x9a
#define ACCESS_DATA           0x92
#define ACCESS_TSS            0x89
#define ACCESS_TSS_BUSY       0x8b
#define ACCESS_TASK_GATE      0x85
#define ACCESS_INTERRUPT_GATE 0x8e
#define ACCESS_TRAP_GATE      0x8f
#define ACCESS_DPL3           0x60

/* Flags, the high nibble of byte 6. */
#define FLAG_LONG  0x2
#define FLAG_32    0x4
#define FLAG_PAGES 0x8

extern u64 gdt[GDT_SLOTS];

/* Writes a segment or system descriptor; a base past 4 GiB needs the second slot, in 64-bit mode. */
void set_descriptor(u16 selector, word base, u32 limit, u8 access, u8 flags);
u8 descriptor_access(u16 selector);
void set_call_gate(u16 selector, u16 target, word offset, u8 access);

struct PACKED tss32 {
    u32 link, esp0, ss0, esp1, ss1, esp2, ss2;
    u32 cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi;
    u32 es, cs, ss, ds, fs, gs, ldt;
    u16 trap, io_map;
    u8 bitmap[130]; /* ports 0 to 0x3ff, then a byte of ones */
};

struct PACKED tss64 {
    u32 reserved0;
    u64 rsp[3];
    u64 reserved1, ist[7], reserved2;
    u16 reserved3, io_map;
    u8 bitmap[130];
};

#if LONG64
extern struct tss64 tss;
#else
extern struct tss32 tss;
#endif

void descriptors_init(void);
#if PAGED
/* GDT and segments on a CPU; descriptors_init() has filled the table. No LTR: a TSS is one CPU's. */
void descriptors_load(void);
#endif
void traps_init(void);

#if PAGED
/* Writes an IDT entry: gate to a handler, or a task gate (offset ignored). */
void set_gate(u32 vector, u16 selector, word offset, u8 access, u8 ist);
void load_idt(u16 limit);
#define GATE_BYTES (LONG64 ? 16 : 8)
#endif
#endif
#endif
