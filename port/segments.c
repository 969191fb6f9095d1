// GDT, TSS and IDT of the host (segments.h has their layouts).
#include "port/segments.h"

typedef struct __attribute__((packed)) {
    uint16_t limit;
    uint64_t base;
} descriptor_table_t;

#define GATE_INTERRUPT 0x8e

extern char boot_stack_end[], ist_stacks[];
extern const char trap_stubs[]; // 16 bytes each, in vector order

// Null, 64-bit code, data, TSS (two words, filled in below).
uint64_t gdt[GDT_SIZE / 8]
    __attribute__((aligned(16))) = {0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0, 0};
idt_gate_t idt[256] __attribute__((aligned(16)));
tss_t tss __attribute__((aligned(16)));

static uint8_t gate_ist(unsigned vector) {
    switch (vector) {
        case 2:
            return IST_NMI;
        case 8:
            return IST_DF;
        case 14:
            return IST_PF;
        case 18:
            return IST_MC;
        default:
            return 0;
    }
}

void segments_init(void) {
    for (unsigned i = 0; i < IST_COUNT; i++) {
        tss.ist[i] = (uintptr_t)ist_stacks + (i + 1) * (4096 + IST_STACK_SIZE);
    }
    tss.rsp[0] = (uintptr_t)boot_stack_end;
    tss.io_map_base = sizeof(tss);

    uint64_t base = (uintptr_t)&tss;
    gdt[HOST_TR / 8] =
        (sizeof(tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24 & 0xff) << 56;
    gdt[HOST_TR / 8 + 1] = base >> 32;

    for (unsigned i = 0; i < 256; i++) {
        uint64_t stub = (uintptr_t)trap_stubs + 16 * i;
        idt[i] = (idt_gate_t){.offset_0 = stub,
            .selector = HOST_CS,
            .ist = gate_ist(i),
            .type = GATE_INTERRUPT,
            .offset_16 = stub >> 16,
            .offset_32 = stub >> 32};
    }

    descriptor_table_t gdtr = {sizeof(gdt) - 1, (uintptr_t)gdt};
    descriptor_table_t idtr = {sizeof(idt) - 1, (uintptr_t)idt};
    __asm volatile("lgdt %0" : : "m"(gdtr));
    __asm volatile("ltr %w0" : : "r"(HOST_TR));
    __asm volatile("lidt %0" : : "m"(idtr));
}
