/* GDT, IDT and TSS of the harness (SDM Vol. 3A, "Protected-Mode Memory Management", "Interrupt and Exception
 * Handling", "Task Management"). */
#include "descriptors.h"

#include "test.h"

u64 gdt[GDT_SLOTS];

void set_descriptor(u16 selector, word base, u32 limit, u8 access, u8 flags) {
    u64 *slot = &gdt[selector >> 3];
    slot[0] = (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
              (u64)(limit >> 16 & 15) << 48 | (u64)flags << 52 | (u64)(base >> 24 & 0xff) << 56;
#if LONG64
    if (!(access & 0x10)) {
        slot[1] = base >> 32;
    }
#endif
}

u8 descriptor_access(u16 selector) {
    return gdt[selector >> 3] >> 40;
}

void set_call_gate(u16 selector, u16 target, word offset, u8 access) {
    u64 *slot = &gdt[selector >> 3];
    slot[0] = (offset & 0xffff) | (u64)target << 16 | (u64)access << 40 |
              (u64)(offset >> 16 & 0xffff) << 48;
#if LONG64
    slot[1] = offset >> 32;
#endif
}

static void fill_gdt(void) {
    set_descriptor(KERNEL_CS, 0, 0xfffff, ACCESS_CODE, FLAG_PAGES | (LONG64 ? FLAG_LONG : FLAG_32));
    set_descriptor(KERNEL_DS, 0, 0xfffff, ACCESS_DATA, FLAG_PAGES | FLAG_32);
    set_descriptor(USER_CS, 0, 0xfffff, ACCESS_CODE | ACCESS_DPL3,
        FLAG_PAGES | (LONG64 ? FLAG_LONG : FLAG_32));
    set_descriptor(USER_DS, 0, 0xfffff, ACCESS_DATA | ACCESS_DPL3, FLAG_PAGES | FLAG_32);
    set_descriptor(SEL_CODE16, 0, 0xffff, ACCESS_CODE, 0);
    set_descriptor(SEL_DATA16, 0, 0xffff, ACCESS_DATA, 0);
    set_descriptor(SEL_CODE64, 0, 0xfffff, ACCESS_CODE, FLAG_PAGES | FLAG_LONG);
    set_descriptor(SEL_CODE32, 0, 0xfffff, ACCESS_CODE, FLAG_PAGES | FLAG_32);
    set_descriptor(SEL_DATA32, 0, 0xfffff, ACCESS_DATA, FLAG_PAGES | FLAG_32);
}

#if REAL16
void descriptors_init(void) {
    fill_gdt();
}
#else

#if LONG64
struct tss64 tss;
static u64 idt[VECTORS * 2];
#else
struct tss32 tss;
static u64 idt[VECTORS];
#endif

extern const word trap_stubs[VECTORS];

void set_gate(u32 vector, u16 selector, word offset, u8 access, u8 ist) {
    u64 *gate = &idt[vector * GATE_BYTES / 8];
    gate[0] = (offset & 0xffff) | (u64)selector << 16 | (u64)ist << 32 | (u64)access << 40 |
              (u64)(offset >> 16 & 0xffff) << 48;
#if LONG64
    gate[1] = offset >> 32;
#endif
}

void load_idt(u16 limit) {
    struct table_register idtr = {limit, (word)idt};
    asm volatile("lidt %0" : : "m"(idtr));
}

void traps_init(void) {
    for (u32 vector = 0; vector < VECTORS; vector++) {
        u8 dpl = vector == BP || vector == OF || vector == VECTOR_USER ? ACCESS_DPL3 : 0;
        set_gate(vector, KERNEL_CS, trap_stubs[vector], ACCESS_INTERRUPT_GATE | dpl, 0);
    }
    load_idt(sizeof(idt) - 1);
}

void descriptors_load(void) {
    struct table_register gdtr = {sizeof(gdt) - 1, (word)gdt};
    asm volatile("lgdt %0" : : "m"(gdtr));
#if LONG64
    asm volatile("pushq %0; leaq 1f(%%rip), %%rax; pushq %%rax; lretq; 1:"
                 :
                 : "i"(KERNEL_CS)
                 : "rax", "memory");
#else
    asm volatile("ljmp %0, $1f; 1:" : : "i"(KERNEL_CS) : "memory");
#endif
    asm volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%fs; mov %0, %%gs; mov %0, %%ss"
                 :
                 : "r"(KERNEL_DS));
}

void descriptors_init(void) {
    fill_gdt();
    tss.io_map = offsetof(__typeof__(tss), bitmap);
    for (u32 byte = 0; byte < sizeof(tss.bitmap); byte++) {
        tss.bitmap[byte] = 0xff;
    }
    set_descriptor(SEL_TSS, (word)&tss, sizeof(tss) - 1, ACCESS_TSS, 0);

#if !LONG64
    tss.ss0 = KERNEL_DS;
#endif
    descriptors_load();
    asm volatile("ltr %w0; lldt %w1" : : "r"(SEL_TSS), "r"(0));
}
#endif
