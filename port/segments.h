// The host's segments: selectors, and the tables behind them.
// Source: SDM Vol. 3A, "Segment Descriptors" and "TSS Descriptor in 64-bit Mode".
#ifndef PCANEL_PORT_SEGMENTS_H
#define PCANEL_PORT_SEGMENTS_H

#define HOST_CS  0x08
#define HOST_DS  0x10
#define HOST_TR  0x18
#define GDT_SIZE 0x28

// Interrupt stack table entries (1-based, as the IDT counts them).
#define IST_DF         1
#define IST_NMI        2
#define IST_MC         3
#define IST_PF         4
#define IST_COUNT      4
#define IST_STACK_SIZE 8192

#define BOOT_STACK_SIZE 0x28000 // some 450 plain Python calls deep

#ifndef __ASSEMBLER__
#include <stdint.h>

typedef struct __attribute__((packed)) {
    uint16_t offset_0;
    uint16_t selector;
    uint8_t ist;
    uint8_t type;
    uint16_t offset_16;
    uint32_t offset_32;
    uint32_t reserved;
} idt_gate_t;

typedef struct __attribute__((packed)) {
    uint32_t reserved0;
    uint64_t rsp[3];
    uint64_t reserved1;
    uint64_t ist[7];
    uint64_t reserved2;
    uint16_t reserved3;
    uint16_t io_map_base;
} tss_t;

extern uint64_t gdt[GDT_SIZE / 8];
extern idt_gate_t idt[256];
extern tss_t tss;

void segments_init(void);
#endif

#endif
