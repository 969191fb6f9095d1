/* Exceptions and software interrupts (SDM Vol. 3A, "Interrupt and Exception Handling"). */
#include "descriptors.h"
#include "test.h"

#define TCG_LIMITS "TCG does not check limits"
#define TCG_SSE    "TCG raises no SSE exceptions"
#define TCG_INT    "TCG numbers IDT entries by 16 bytes in the error code"

static void instructions(void) {
    ATTEMPT("xorl %%edx, %%edx; movl $1, %%eax; xorl %%ecx, %%ecx; divl %%ecx",
            :
            :
            : "eax", "ecx", "edx");
    check_trap("DIV by zero is #DE", DE, 0);
    ATTEMPT("movl $0x80000000, %%eax; cltd; movl $-1, %%ecx; idivl %%ecx",
            :
            :
            : "eax", "ecx", "edx");
    check_trap("IDIV overflow is #DE", DE, 0);
    ATTEMPT("int3", :);
    check_trap("INT3 is #BP", BP, 0);
    ATTEMPT(".byte 0xf1", :);
    excuse(on_tcg(), TRAP(UD, 0), "TCG does not know INT1");
    check_trap("INT1 is #DB", DB, 0);
    ATTEMPT("ud2", :);
    check_trap("UD2 is #UD", UD, 0);
    ATTEMPT(".byte 0xf0, 0x90", :); /* LOCK NOP */
    check_trap("LOCK where it may not be is #UD", UD, 0);
#if LONG64
    ATTEMPT(".byte 0xce", :);
    check_trap("INTO is #UD", UD, 0);
#else
    ATTEMPT("movb $0x7f, %%al; addb $1, %%al; into", : : : "eax");
    check_trap("INTO with OF is #OF", OF, 0);
    ATTEMPT("xorl %%eax, %%eax; into", : : : "eax");
    check_trap("INTO without OF is nothing", NONE, 0);
    static const u32 bounds[2] = {1, 5};
    ATTEMPT("bound %0, %1", : : "r"(6), "m"(bounds));
    check_trap("BOUND outside is #BR", BR, 0);
    ATTEMPT("bound %0, %1", : : "r"(5), "m"(bounds));
    check_trap("BOUND inside is nothing", NONE, 0);
#endif
}

static void return_addresses(void) {
    word fault, after;
    ATTEMPT(ADDRESS_OF("1f", "%0") ADDRESS_OF("2f", "%1") "1: ud2\n2:",
            : "=&r"(fault), "=&r"(after));
    check("a fault's IP is the instruction's", trap.ip, fault);
    ATTEMPT(ADDRESS_OF("1f", "%0") "int3\n1:", : "=&r"(after));
    check("a trap's IP is the next instruction's", trap.ip, after);
}

static void floating_point(void) {
    word cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 | CR0_NE | CR0_MP) & ~(word)(CR0_EM | CR0_TS));
    static const u16 unmasked = 0x033b; /* zero divide unmasked */
    ATTEMPT("fninit; fldcw %0; fldz; fld1; fdivp; fwait", : : "m"(unmasked));
    check_trap("x87 divide by zero is #MF", MF, 0);
    asm volatile("fninit");
    write_cr0(read_cr0() | CR0_TS);
    ATTEMPT("fnop", :);
    check_trap("x87 with CR0.TS is #NM", NM, 0);
    ATTEMPT("fwait", :);
    check_trap("WAIT with CR0.TS and MP is #NM", NM, 0);
    write_cr0((read_cr0() | CR0_EM) & ~(word)CR0_TS);
    ATTEMPT("fnop", :);
    check_trap("x87 with CR0.EM is #NM", NM, 0);
    write_cr0(read_cr0() & ~(word)CR0_EM);
    write_cr4(cr4 & ~(word)CR4_OSFXSR);
    ATTEMPT("xorps %%xmm0, %%xmm0", :);
    check_trap("SSE without CR4.OSFXSR is #UD", UD, 0);
    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    static const u32 divide = 0x1d80, masked = 0x1f80;
    static const __attribute__((aligned(16)))
    u32 ones[4] = {0x3f800000, 0x3f800000, 0x3f800000, 0x3f800000};
    ATTEMPT("ldmxcsr %0; movaps %1, %%xmm0; xorps %%xmm1, %%xmm1; divps %%xmm1, %%xmm0",
            :
            : "m"(divide), "m"(ones));
    excuse(on_tcg(), NO_TRAP, TCG_SSE);
    check_trap("SSE divide by zero is #XM", XM, 0);
    write_cr4(cr4 | CR4_OSFXSR);
    ATTEMPT("ldmxcsr %0; movaps %1, %%xmm0; xorps %%xmm1, %%xmm1; divps %%xmm1, %%xmm0",
            :
            : "m"(divide), "m"(ones));
    excuse(on_tcg(), NO_TRAP, TCG_SSE);
    check_trap("the same without CR4.OSXMMEXCPT is #UD", UD, 0);
    asm volatile("ldmxcsr %0" : : "m"(masked));
    write_cr4(cr4);
    write_cr0(cr0);
}

static word flags_inside;
static u32 calls, nested;

static bool note_flags(struct frame *frame) {
    (void)frame;
    flags_inside = read_flags();
    calls++;
    return true;
}

static bool skip_ud2(struct frame *frame) {
    frame->ip += 2;
    nested++;
    return true;
}

static bool fault_inside(struct frame *frame) {
    (void)frame;
    calls++;
    asm volatile("ud2");
    nested *= 16;
    return true;
}

static void software_interrupts(void) {
    set_hook(VECTOR_INT, note_flags);
    calls = 0;
    word before, after;
    asm volatile("sti; stc; pushf; int %2; pushf; cli; pop %0; pop %1"
                 : "=&r"(after), "=&r"(before)
                 : "i"(VECTOR_INT)
                 : "memory");
    check("INT n arrives", calls, 1);
    check("INT n clears IF inside", flags_inside & FLAGS_IF, 0);
    check("IRET brings the flags back", after, before);
#if PAGED
    extern const word trap_stubs[];
    set_gate(VECTOR_INT, KERNEL_CS, trap_stubs[VECTOR_INT], ACCESS_TRAP_GATE, 0);
    asm volatile("sti; int %0; cli" : : "i"(VECTOR_INT) : "memory");
    set_gate(VECTOR_INT, KERNEL_CS, trap_stubs[VECTOR_INT], ACCESS_INTERRUPT_GATE, 0);
    check("a trap gate keeps IF", flags_inside & FLAGS_IF, FLAGS_IF);
#endif
    set_hook(VECTOR_INT, NULL);

    set_hook(UD, skip_ud2);
    set_hook(BP, fault_inside);
    calls = nested = 0;
    asm volatile("int3" : : : "memory");
    set_hook(UD, NULL);
    set_hook(BP, NULL);
    check("a fault inside a handler nests", calls << 8 | nested, 0x110);
}

#if REAL16
static void segments(void) {
    ATTEMPT("movl %%ds:(%%ebx), %%eax", : : "b"(0xfffe) : "eax");
    excuse(on_tcg(), NO_TRAP, TCG_LIMITS);
    check_trap("an access across the limit is #GP", GP, 0);
    ATTEMPT("movl %%ss:(%%ebx), %%eax", : : "b"(0xfffe) : "eax");
    excuse(on_tcg(), NO_TRAP, TCG_LIMITS);
    check_trap("an access across the stack's limit is #SS", SS, 0);
}

/* With the vector table cut behind #DF, an interrupt past it is #GP, and that one a double fault. */
static void double_fault(void) {
    struct table_register idtr, cut = {4 * (DF + 1) - 1, 0};
    asm volatile("sidtl %0" : "=m"(idtr));
    ATTEMPT("lidtl %0; int $0x30", : : "m"(cut));
    asm volatile("lidtl %0" : : "m"(idtr));
    check_trap("#GP in #GP is #DF", DF, 0);
}
#else
static void segments(void) {
    ATTEMPT("mov %0, %%es", : : "r"(0xf8));
    check_trap("a selector past the GDT is #GP", GP, 0xf8);
    ATTEMPT("mov %0, %%es", : : "r"(0xfc));
    check_trap("a selector of a missing LDT is #GP", GP, 0xfc);
    set_descriptor(SEL_SCRATCH, 0, 0xfffff, ACCESS_DATA & ~0x80, FLAG_PAGES | FLAG_32);
    ATTEMPT("mov %0, %%es", : : "r"(SEL_SCRATCH));
    check_trap("a segment that is not present is #NP", NP, SEL_SCRATCH);
    word ss;
    ATTEMPT_THEN("mov %1, %%ss", "mov %0, %%ss", : "=&r"(ss) : "r"(SEL_SCRATCH), "0"(KERNEL_DS));
    check_trap("a stack that is not present is #SS", SS, SEL_SCRATCH);
    ATTEMPT("mov %0, %%ss", : : "r"(0xf8));
    check_trap("a stack selector past the GDT is #GP", GP, 0xf8);
    set_descriptor(SEL_SCRATCH, 0, 0xfffff, ACCESS_CODE & ~0x02, FLAG_PAGES | FLAG_32);
    ATTEMPT("mov %0, %%es", : : "r"(SEL_SCRATCH));
    check_trap("an execute-only segment as data is #GP", GP, SEL_SCRATCH);
    ATTEMPT_THEN(
        "mov %%" REG_SP ", %%" REG_BX "; push %0; push %0; " LRET, "mov %%" REG_BX ", %%" REG_SP,
        :
        : "r"((word)0xf8)
        : REG_BX, "memory");
    check_trap("a far return to a bad selector is #GP", GP, 0xf8);
    asm volatile("mov %0, %%es" : : "r"(KERNEL_DS));
    asm volatile("mov %0, %%ss" : : "r"(KERNEL_DS));
    ATTEMPT("ltr %w0", : : "r"(KERNEL_DS));
    check_trap("LTR of a data segment is #GP", GP, KERNEL_DS);
    ATTEMPT("lldt %w0", : : "r"(KERNEL_DS));
    check_trap("LLDT of a data segment is #GP", GP, KERNEL_DS);
#if LONG64
    ATTEMPT("movq %0, %%rbp; movq (%%rbp), %%rax", : : "r"(1ull << 63) : "rax", "rbp");
    excuse(on_tcg(), TRAP(GP, 0), "TCG knows one fault for non-canonical addresses");
    check_trap("a non-canonical stack access is #SS", SS, 0);
    ATTEMPT("movq (%0), %%rax", : : "r"(1ull << 63) : "rax");
    check_trap("a non-canonical access is #GP", GP, 0);
#endif
}

#if LONG64
static word stack_inside;

static bool note_stack(struct frame *frame) {
    stack_inside = (word)(frame + 1);
    return false;
}
#endif

/* What TCG puts into an error code instead of vector * 8 + 2. */
#define BY_16(vector) ((vector)*GATE_BYTES + 2)

static void gates(void) {
    ATTEMPT("int $0x80", :);
    excuse(on_tcg(), TRAP(GP, BY_16(0x80)), TCG_INT);
    check_trap("INT past the IDT is #GP", GP, 0x80 * 8 + 2);
    set_gate(VECTOR_INT, KERNEL_CS, 0, ACCESS_INTERRUPT_GATE & ~0x80, 0);
    ATTEMPT("int %0", : : "i"(VECTOR_INT));
    excuse(on_tcg(), TRAP(NP, BY_16(VECTOR_INT)), TCG_INT);
    check_trap("INT through a gate that is not present is #NP", NP, VECTOR_INT * 8 + 2);
    set_gate(VECTOR_INT, KERNEL_CS, 0, ACCESS_DATA, 0);
    ATTEMPT("int %0", : : "i"(VECTOR_INT));
    excuse(on_tcg(), TRAP(GP, BY_16(VECTOR_INT)), TCG_INT);
    check_trap("INT through no gate at all is #GP", GP, VECTOR_INT * 8 + 2);
    set_gate(VECTOR_INT, 0, 0, ACCESS_INTERRUPT_GATE, 0);
    ATTEMPT("int %0", : : "i"(VECTOR_INT));
    check_trap("INT to a null code segment is #GP", GP, 0);
    set_gate(DE, KERNEL_CS, 0, ACCESS_INTERRUPT_GATE & ~0x80, 0);
    ATTEMPT("xorl %%ecx, %%ecx; divl %%ecx", : : : "eax", "ecx", "edx");
    check_trap("#NP in #DE is #DF", DF, 0);
#if LONG64
    extern const word trap_stubs[];
    static __attribute__((aligned(16))) u8 stack[2048];
    tss.ist[0] = (word)stack + sizeof(stack);
    set_gate(UD, KERNEL_CS, trap_stubs[UD], ACCESS_INTERRUPT_GATE, 1);
    set_hook(UD, note_stack);
    word sp;
    ATTEMPT("mov %%rsp, %0; ud2", : "=r"(sp));
    set_hook(UD, NULL);
    check("a fault on an IST stack comes back to its own", trap.sp, sp);
    check("its frame is on top of the IST stack", stack_inside, tss.ist[0]);
#endif
    traps_init();
}
#endif

void test_exceptions(void) {
    instructions();
    return_addresses();
    floating_point();
    software_interrupts();
    segments();
#if REAL16
    double_fault();
#else
    gates();
#endif
}
