/* Mode switches (SDM Vol. 3A, "Mode Switching", "Initializing IA-32e Mode"). Each guest leaves its own mode, goes
 * round the others and comes back. */
#include "descriptors.h"
#include "test.h"

#if REAL16
/* Filled by excursion16 in modes16.S. */
struct excursion {
    u32 protected_cr0, pae_cr0, long_high, compatibility, back_cr0, unreal;
} excursion;

void excursion16(void);

void test_modes(void) {
    if (!(cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_LM)) {
        skip("all", "no long mode");
        return;
    }
    word cr0 = read_cr0(), cr4 = read_cr4();
    u64 efer = rdmsr(IA32_EFER);
    excursion16();
    check("protected mode has CR0.PE", excursion.protected_cr0 & 1, 1);
    check("PAE paging has CR0.PG", excursion.pae_cr0 & CR0_PG, CR0_PG);
    check("64-bit mode has 64-bit registers", excursion.long_high, 0x12345678);
    check("compatibility mode has 32-bit instructions", excursion.compatibility, 4);
    check("real mode is back", excursion.back_cr0 & CR0_PE, 0);
    check("unreal mode reaches past 64 KiB", excursion.unreal, 0x600df00d);
    check("CR0 is as before", read_cr0(), cr0);
    check("CR4 is as before", read_cr4(), cr4);
    check("EFER is as before", rdmsr(IA32_EFER), efer);
}
#else
#include "low.h"
#include "paging.h"

extern const char low_start[], low_end[];

#define FLAGS_VM 0x20000u

static volatile struct low_results *const results = (volatile struct low_results *)LOW_RESULTS;

static void call_low(void) {
#if LONG64
    /* 64-bit, compatibility, protected without paging, the excursion, and all the way back. */
    asm volatile("push %%rbx; push %%rbp; push %%r12; push %%r13; push %%r14; push %%r15\n\t"
                 "pushq %0; leaq 1f(%%rip), %%rax; push %%rax; lretq\n"
                 ".code32\n"
                 "1: movl %%cr0, %%eax; andl $0x7fffffff, %%eax; movl %%eax, %%cr0\n\t"
                 "movl $0xc0000080, %%ecx; rdmsr; andl $~0x100, %%eax; wrmsr\n\t"
                 "movl %1, %%eax; call *%%eax\n\t"
                 "movl $0xc0000080, %%ecx; rdmsr; orl $0x100, %%eax; wrmsr\n\t"
                 "movl %%cr0, %%eax; orl $0x80000000, %%eax; movl %%eax, %%cr0\n\t"
                 "ljmp %2, $2f\n"
                 ".code64\n"
                 "2: pop %%r15; pop %%r14; pop %%r13; pop %%r12; pop %%rbp; pop %%rbx"
                 :
                 : "i"(SEL_CODE32), "i"(LOW_CODE), "i"(KERNEL_CS)
                 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
#else
    if (PAE) {
        paging_off();
    }
    asm volatile("lcall %0, $1f; jmp 2f; 1: call *%1; lret; 2:"
                 :
                 : "i"(KERNEL_CS), "r"(LOW_CODE)
                 : "memory", "cc");
    if (PAE) {
        paging_on();
    }
#endif
}

static void excursion(void) {
    for (u32 byte = 0; low_start + byte < low_end; byte++) {
        ((volatile u8 *)LOW_CODE)[byte] = low_start[byte];
    }
    results->reached = 0;
    call_low();
}

static void to_real_mode(void) {
    excursion();
    check("there and back", results->reached, 1);
    check("16-bit protected mode has its stack", results->protected_stack, 0x1234);
    check("real mode has CR0.PE clear", results->msw & 1, 0);
    check("real mode adds segment and offset", results->alias, 0x42);
    check("real mode has interrupts by the table at 0", results->interrupts, 2);
    check("unreal mode reaches past 64 KiB", results->unreal, 0x600df00d);
    results->reached = 0;
    call_low();
    check("there and back again", results->reached << 8 | results->interrupts, 0x102);
}

#if LONG64
static u16 interrupted_cs;

static bool note_cs(struct frame *frame) {
    interrupted_cs = frame->cs;
    return true;
}

static void compatibility(void) {
    u32 count, high;
    set_hook(VECTOR_INT, note_cs);
    asm volatile("movl $5, %%ebx; movq $-1, %%rdx\n\t"
                 "pushq %2; leaq 1f(%%rip), %%rax; push %%rax; lretq\n"
                 ".code32\n"
                 "1: .byte 0x4b\n\t" /* DEC EBX here, REX in 64-bit mode */
                 "int %4\n\t"
                 "ljmp %3, $2f\n"
                 ".code64\n"
                 "2: movl %%ebx, %0; shr $32, %%rdx; movl %%edx, %1"
                 : "=&r"(count), "=&r"(high)
                 : "i"(SEL_CODE32), "i"(KERNEL_CS), "i"(VECTOR_INT)
                 : "rax", "rbx", "rdx", "memory", "cc");
    set_hook(VECTOR_INT, NULL);
    check("compatibility mode has 32-bit instructions", count, 4);
    check("an interrupt from compatibility mode", interrupted_cs, SEL_CODE32);
    check("and 64-bit registers survive it", high, 0xffffffff);
}
#else
static u32 v86_ax, v86_dx, v86_flags;
volatile u32 v86_esp;

static bool note_v86(struct frame *frame) {
    v86_ax = frame->eax & 0xffff;
    v86_dx = frame->edx & 0xffff;
    v86_flags = frame->flags;
    extern const char v86_back[];
    /* IRET goes on in ring 0, behind v86_enter's own IRET; the stack is set right there. */
    frame->ip = (word)v86_back;
    frame->cs = KERNEL_CS;
    frame->flags = 2;
    return true;
}

/* IRET to virtual-8086 mode at CS:0 with these flags; v86_back is where its INT leads. */
void v86_enter(u32 cs, u32 flags);
asm(".text\nv86_enter: pushal; movl %esp, v86_esp\n\t"
    "pushl $0; pushl $0; pushl $0; pushl $0; pushl $0; pushl $0x7000; pushl %edx; pushl %eax; "
    "pushl $0; iretl\n"
    "v86_back: movl %cs:v86_esp, %esp; movl $0x10, %eax; movl %eax, %ds; movl %eax, %es; movl "
    "%eax, %fs; movl %eax, %gs\n\t"
    "popal; ret");

static void virtual_8086(void) {
    if (PAE) {
        skip("virtual-8086 mode executes 8086 code", "its pages are the supervisor's here");
        skip("virtual-8086 mode has VM set", "its pages are the supervisor's here");
        return;
    }
    static u8 stack[2048] __attribute__((aligned(16)));
    static const u8 code[] = {
        0xb8, 0x34, 0x12, 0x8c, 0xca, 0xcd, VECTOR_USER}; /* MOV AX, 1234H; MOV DX, CS; INT */
    for (u32 byte = 0; byte < sizeof(code); byte++) {
        ((volatile u8 *)LOW_CODE)[byte] = code[byte];
    }
    tss.esp0 = (word)stack + sizeof(stack);
    set_hook(VECTOR_USER, note_v86);
    v86_enter(LOW_CODE >> 4, FLAGS_VM | 0x3000 | 2);
    set_hook(VECTOR_USER, NULL);
    check("virtual-8086 mode executes 8086 code", v86_ax << 16 | v86_dx,
        0x1234u << 16 | LOW_CODE >> 4);
    check("virtual-8086 mode has VM set", v86_flags & FLAGS_VM, FLAGS_VM);
}

static void paging_toggles(void) {
    bool was_on = read_cr0() & CR0_PG;
    word root = paging_root();
    bool right = true;
    for (u32 turn = 0; turn < 10; turn++) {
        paging_on();
        right &= (read_cr0() & CR0_PG) && read_cr3() == root;
        paging_off();
        right &= !(read_cr0() & CR0_PG);
    }
    if (was_on) {
        paging_on();
    }
    check_true("paging on and off ten times", right);
}
#endif

void test_modes(void) {
    to_real_mode();
#if LONG64
    compatibility();
#else
    paging_toggles();
    virtual_8086();
#endif
}
#endif
