/* What is done for an instruction in the CPU's place: the rights of all its operands, and each of its steps. The
 * operands lie on device memory (the I/O APIC, or addresses where nothing is), for INS and OUTS in RAM. On RAM alone,
 * natively, the same holds (SDM Vol. 3A, "Limit Checking", "Type Checking", "Determination of Access Rights", "PDPTE
 * Registers"; Vol. 3B, "Single-Step Exception Condition"). */
#include "test.h"

#if PAGED
#include "descriptors.h"
#include "paging.h"
#include "user.h"

#define IOREGSEL 0xfec00000u
#define IOWIN    0xfec00010u
#define NOBODY   0xfd000000u /* neither RAM nor a device */
#define SCRATCH  0x3ff

#define TCG_SEGMENTS "TCG checks no segments"
#define BOCHS_KEYS   "Bochs lets the supervisor past a key that denies access"
#define TCG_ZEROS    "QEMU reads zeros where nothing is"

static volatile u32 ram[16];

static void map(u32 page, pte_t entry) {
    *window_pte(page) = entry;
    invlpg(WINDOW(page));
}

/* SMAP, with and without EFLAGS.AC. */
static void smap(void) {
    if (!(cpuid_leaf(7, 0).ebx & CPUID_7_EBX_SMAP)) {
        skip("SMAP", "no SMAP");
        return;
    }
    word cr4 = read_cr4();
    map(0, IOREGSEL | PTE_P | PTE_W | PTE_U | PTE_PCD);
    map(1, (pte_t)(word)window_frame(1) | PTE_P | PTE_W | PTE_U);
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    write_cr4(cr4 | CR4_SMAP);
    u32 eax = 1;
    word si = (word)WINDOW(1), di = (word)WINDOW(3), cx = 4;
    ATTEMPT("xchgl %%eax, (%1)", : "+a"(eax) : "r"(WINDOW(0)) : "memory");
    excuse(on_tcg(), TRAP(PF, PF_P), "TCG says that XCHG reads");
    check_trap("SMAP without AC, XCHG of a device in a user page", PF, PF_P | PF_W);
    ATTEMPT("rep movsb", : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    check_trap("SMAP without AC, REP MOVSB from a user page to a device", PF, PF_P);
    check("SMAP without AC, it has not moved", si == (word)WINDOW(1) && cx == 4, true);
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    check_trap("SMAP without AC, OUTSB from a user page", PF, PF_P);
    asm volatile("stac");
    ATTEMPT("xchgl %%eax, (%1)", : "+a"(eax) : "r"(WINDOW(0)) : "memory");
    asm volatile("clac");
    check_trap("SMAP with AC, XCHG of a device in a user page", NONE, 0);
    asm volatile("stac");
    ATTEMPT("rep movsb", : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    asm volatile("clac");
    check_trap("SMAP with AC, REP MOVSB from a user page to a device", NONE, 0);
    si = di = (word)WINDOW(1);
    asm volatile("stac");
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    asm volatile("clac");
    check_trap("SMAP with AC, OUTSB from a user page", NONE, 0);
    asm volatile("stac");
    ATTEMPT("insb", : "+D"(di) : "d"(SCRATCH) : "memory");
    asm volatile("clac");
    check_trap("SMAP with AC, INSB into a user page", NONE, 0);
    write_cr4(cr4);
    window_reset();
}

#if PAE
/* PDPTEs are loaded by MOV to CR3, and are not read from memory again. */
static void pdptes(void) {
    u64 last = pdpt[3], window = pdpt[1];
    u32 got = 0;
    word si = (word)WINDOW(1);
    *(volatile u32 *)IOREGSEL = 1;
    pdpt[3] = 0;
    ATTEMPT("movl (%1), %0", : "=a"(got) : "r"(IOREGSEL) : "memory");
    pdpt[3] = last;
    excuse(on_tcg(), TRAP(PF, 0), "TCG does not cache PDPTEs");
    check_trap("a PDPTE gone from memory only, MOV of a device", NONE, 0);
    pdpt[1] = 0;
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    pdpt[1] = window;
    excuse(on_tcg(), TRAP(PF, 0), "TCG does not cache PDPTEs");
    check_trap("a PDPTE gone from memory only, OUTSB", NONE, 0);
    write_cr3(read_cr3());
}
#endif

#if LONG64
/* The operand in a user page with a protection key that denies it. */
static void keys(void) {
    if (!(cpuid_leaf(7, 0).ecx & CPUID_7_ECX_PKU)) {
        skip("protection keys", "no PKU");
        return;
    }
    word cr4 = read_cr4();
    map(0, IOREGSEL | PTE_P | PTE_W | PTE_U | PTE_PCD | 5ull << 59);
    write_cr4(cr4 | CR4_PKE);
    asm volatile("wrpkru" : : "a"(2u << 10), "c"(0), "d"(0));
    word si = (word)WINDOW(0), di = (word)ram;
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    check_trap("a key that denies writes, MOVSD from there", NONE, 0);
    si = (word)ram, di = (word)WINDOW(0);
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    check_trap("a key that denies writes, MOVSD to there", PF, PF_P | PF_W | PF_PK);
    map(1, (pte_t)(word)window_frame(1) | PTE_P | PTE_W | PTE_U | 5ull << 59);
    asm volatile("wrpkru" : : "a"(1u << 10), "c"(0), "d"(0));
    si = (word)WINDOW(1);
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    excuse(true, NO_TRAP, BOCHS_KEYS);
    check_trap("a key that denies access, OUTSB from there", PF, PF_P | PF_PK);
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    si = (word)WINDOW(3), di = (word)WINDOW(1);
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    excuse(true, NO_TRAP, BOCHS_KEYS);
    check_trap("a key that denies access, MOVSD from a device to there", PF, PF_P | PF_W | PF_PK);
    asm volatile("wrpkru" : : "a"(0), "c"(0), "d"(0));
    write_cr4(cr4);
    window_reset();
}

/* In 64-bit mode: addresses that are not canonical, the stack's and others'. */
static void canonical(void) {
    extern const word trap_stubs[];
    static __attribute__((aligned(16))) u8 stack[4096];
    word si = IOREGSEL, di = 0x8000000000000000ull;
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    tss.ist[0] = (word)stack + sizeof(stack);
    set_gate(SS, KERNEL_CS, trap_stubs[SS], ACCESS_INTERRUPT_GATE, 1);
    set_gate(GP, KERNEL_CS, trap_stubs[GP], ACCESS_INTERRUPT_GATE, 1);
    set_gate(PF, KERNEL_CS, trap_stubs[PF], ACCESS_INTERRUPT_GATE, 1);
#define ON_STACK(name, instruction, rsp, vector, error)                                            \
    ATTEMPT_THEN("mov %%rsp, %%rbx; mov %1, %%rsp; " instruction, "mov %%rbx, %%rsp",              \
                 :                                                                                 \
                 : "r"(WINDOW(3)), "r"((word)(rsp))                                                \
                 : "rbx", "memory");                                                               \
    excuse(on_tcg() && vector == SS, TRAP(GP, 0), "TCG raises #GP for the stack, too");            \
    check_trap(name, vector, error)
    ON_STACK("PUSH of a device, RSP not canonical, #SS", "pushw (%0)", di, SS, 0);
    ON_STACK("CALL by a device, RSP not canonical, #SS", "call *(%0)", di, SS, 0);
    ON_STACK("POP to a device, RSP not canonical, #SS", "popw (%0)", di, SS, 0);
    ON_STACK("PUSH of a device, no stack there, #PF", "pushw (%0)", TEST_VA + 0x10000000, PF, PF_W);
    ON_STACK("CALL by a device, no stack there, #PF", "call *(%0)", TEST_VA + 0x10000000, PF, PF_W);
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    check_trap("MOVSD from a device to a non-canonical RDI, #GP", GP, 0);
    traps_init();
}
#else
/* Segments: limits, null, read-only, expand-down. ES:EDI is RAM, DS:ESI a device. */
static void try(u16 selector, word from, word to, const char *name, u32 vector) {
    static char what[80];
    u32 at = 0;
    word si = from, di = to;
    ram[0] = 0x55;
    ATTEMPT_THEN("mov %w2, %%es; movsl", "mov %w3, %%es",
                 : "+S"(si), "+D"(di)
                 : "r"((u32)selector), "r"((u32)KERNEL_DS)
                 : "memory");
    excuse(on_tcg() && vector == GP, NO_TRAP, TCG_SEGMENTS);
    check_trap(name, vector, 0);
    while (name[at] && at < sizeof(what) - 10) {
        what[at] = name[at];
        at++;
    }
    for (u32 i = 0; i < 9; i++) {
        what[at + i] = " (memory)"[i];
    }
    what[at + 9] = 0;
    excuse(on_tcg() && vector == GP, false, TCG_SEGMENTS);
    check(what, ram[0] == 0x55, vector != NONE);
}

static void segments(void) {
    u32 end = ((u32)ram & ~0xfffu) + 0xfff; /* the last byte of the page that RAM starts in */
    ram[4] = 0;
    set_descriptor(SEL_SCRATCH, (word)ram, 2, ACCESS_DATA, FLAG_32);
    try(SEL_SCRATCH, (word)&ram[4], 0, "MOVSD from RAM beyond ES's limit", GP);
    try(SEL_SCRATCH, IOREGSEL, 0, "MOVSD from a device beyond ES's limit", GP);
    set_descriptor(SEL_SCRATCH, (word)ram, 3, ACCESS_DATA, FLAG_32);
    try(SEL_SCRATCH, IOREGSEL, 0, "MOVSD from a device up to ES's limit", NONE);
    try(0, (word)&ram[4], (word)ram, "MOVSD from RAM, ES null", GP);
    try(0, IOREGSEL, (word)ram, "MOVSD from a device, ES null", GP);
    set_descriptor(SEL_SCRATCH, 0, 0xfffff, ACCESS_DATA & ~2, FLAG_32 | FLAG_PAGES);
    try(SEL_SCRATCH, IOREGSEL, (word)ram, "MOVSD from a device, ES read-only", GP);
    set_descriptor(SEL_SCRATCH, 0, end >> 12, ACCESS_DATA | 4, FLAG_32 | FLAG_PAGES);
    try(SEL_SCRATCH, IOREGSEL, (word)ram, "MOVSD from a device, ES expands down to above", GP);
    set_descriptor(SEL_SCRATCH, 0, ((u32)ram >> 12) - 1, ACCESS_DATA | 4, FLAG_32 | FLAG_PAGES);
    try(SEL_SCRATCH, IOREGSEL, (word)ram, "MOVSD from a device, ES expands down to below", NONE);
    set_descriptor(SEL_SCRATCH, 0, 0xfff, ACCESS_DATA, FLAG_32);
    word di = (word)ram;
    ATTEMPT_THEN("mov %w1, %%es; insb", "mov %w2, %%es",
                 : "+D"(di)
                 : "r"((u32)SEL_SCRATCH), "r"((u32)KERNEL_DS), "d"(SCRATCH)
                 : "memory");
    excuse(on_tcg(), NO_TRAP, TCG_SEGMENTS);
    check_trap("INSB beyond ES's limit", GP, 0);
}

/* The stack is device memory, where nothing is: what is read is ones, what is written is gone. */
static void stack(void) {
    static volatile u32 kept, eax, esp;
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    asm volatile("pusha; movl %%esp, %0; movl %3, %%esp; popa; movl %%eax, %1; movl %%esp, %2; "
                 "movl %0, %%esp; popa"
                 : "=m"(kept), "=m"(eax), "=m"(esp)
                 : "i"(TEST_VA + 3 * PAGE)
                 : "memory");
    excuse(on_tcg(), 0, TCG_ZEROS);
    check("POPA from nothing", eax, 0xffffffff);
    check("POPA goes up by 32", esp, (word)WINDOW(3) + 32);
    asm volatile(
        "pusha; movl %%esp, %0; movl %2, %%esp; pusha; movl %%esp, %1; movl %0, %%esp; popa"
        : "=m"(kept), "=m"(esp)
        : "i"(TEST_VA + 3 * PAGE + 0x100)
        : "memory");
    check("PUSHA to nothing goes down by 32", esp, (word)WINDOW(3) + 0xe0);
}
#endif

/* A REP instruction is stepped turn by turn. */
static volatile u32 steps;

static bool step(struct frame *frame) {
    steps++;
    if (steps == 12) {
        frame->flags &= ~(word)FLAGS_TF;
    }
    return true;
}

#define STEPPED(instructions)                                                                      \
    "pushf; pushf; orl $0x100, (%%" REG_SP "); popf; " instructions "; popf"

static void stepping(void) {
    word si = (word)WINDOW(3), di = (word)ram, cx = 3;
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    set_hook(DB, step);
    steps = 0;
    asm volatile(STEPPED("rep movsb") : "+S"(si), "+D"(di), "+c"(cx) : : "memory", "cc");
    check("REP MOVSB from a device traps after each byte", steps << 8 | cx, 0x400);
    si = (word)ram, di = (word)WINDOW(3), cx = 3, steps = 0;
    asm volatile(STEPPED("rep movsb") : "+S"(si), "+D"(di), "+c"(cx) : : "memory", "cc");
    check("REP MOVSB to a device traps after each byte", steps << 8 | cx, 0x400);
    di = (word)WINDOW(3), cx = 2, steps = 0;
    asm volatile(STEPPED("rep stosb") : "+D"(di), "+c"(cx) : "a"(0) : "memory", "cc");
    check("REP STOSB to a device traps after each byte", steps << 8 | cx, 0x300);
    si = (word)WINDOW(3), cx = 2, steps = 0;
    asm volatile(STEPPED("rep lodsb") : "+S"(si), "+c"(cx) : : "eax", "memory", "cc");
    check("REP LODSB of a device traps after each byte", steps << 8 | cx, 0x300);
    si = (word)WINDOW(3), di = (word)WINDOW(3), cx = 2, steps = 0;
    asm volatile(STEPPED("rep cmpsb") : "+S"(si), "+D"(di), "+c"(cx) : : "memory", "cc");
    check("REP CMPSB of devices traps after each byte", steps << 8 | cx, 0x300);
    steps = 0;
    asm volatile(STEPPED("shll $1, (%0)") : : "r"((word)IOWIN) : "memory", "cc");
    check("SHL of a device traps once", steps, 2);
    set_hook(DB, NULL);
    window_reset();
}

/* An operand across two pages: nothing has happened when the second refuses. */
static void crossing(void) {
    word si = (word)WINDOW(3), di = (word)WINDOW(5) - 2;
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    map(5, 0);
    *(volatile u16 *)di = 0x5555;
    map(4, (pte_t)(word)window_frame(4) | PTE_P | PTE_W);
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    check_trap("MOVSD from a device across into a missing page", PF, PF_W);
    check("its CR2 is the second page", trap.cr2, (word)WINDOW(5));
    check("the first page is as it was", *(volatile u16 *)di, 0x5555);
    di = (word)WINDOW(5) - 2;
    ATTEMPT("insl", : "+D"(di) : "d"(0x5600) : "memory");
    check_trap("INSD across into a missing page", PF, PF_W);
    check("the first page is as it was, too", *(volatile u16 *)di, 0x5555);
    map(5, (pte_t)(word)window_frame(5) | PTE_P | PTE_W);
    ATTEMPT("movsl", : "+S"(si), "+D"(di) : : "memory");
    check_trap("MOVSD from a device across two pages", NONE, 0);
    check("A and D of both", *window_pte(4) & *window_pte(5) & (PTE_A | PTE_D), PTE_A | PTE_D);
    window_reset();
}

/* Instructions of all kinds on a register of the I/O APIC, which keeps bits 27-24 of its ID. */
static void registers(void) {
    volatile u32 *window = (volatile u32 *)IOWIN;
    u32 eax, edx;
    *(volatile u32 *)IOREGSEL = 0;
    u32 id = *window;
    *window = 0x03000000;
    asm volatile("shll $1, %0" : "+m"(*window) : : "cc");
    check("SHL of a register", *window, 0x06000000);
    asm volatile("bsfl %1, %0" : "=r"(eax) : "m"(*window) : "cc");
    check("BSF of a register", eax, 25);
    asm volatile("mull %2" : "=a"(eax), "=d"(edx) : "m"(*window), "0"(0x100) : "cc");
    check("MUL by a register", (u64)edx << 32 | eax, 0x600000000ull);
    ATTEMPT("divl %2", : "=a"(eax), "=d"(edx) : "m"(*window), "0"(0x0c000000), "1"(0));
    check("DIV by a register", trap.vector == NONE && eax == 2 && edx == 0, true);
    ATTEMPT("divl %2", : "=a"(eax), "=d"(edx) : "m"(*window), "0"(0), "1"(0x06000000));
    check_trap("DIV by a register that overflows", DE, 0);
    u16 pushed;
    *(volatile u32 *)IOREGSEL = 2;
    asm volatile("pushw (%1); popw %0" : "=r"(pushed) : "r"((word)IOREGSEL) : "memory");
    check("PUSH of a register", pushed, 2);
    *(volatile u32 *)IOREGSEL = 0;
    map(3, (pte_t)NOBODY | PTE_P | PTE_W | PTE_PCD);
    ATTEMPT("movw (%0), %%ss", : : "r"(WINDOW(3)) : "memory");
    excuse(on_tcg(), LONG64 ? NO_TRAP : TRAP(GP, 0), TCG_ZEROS);
    check_trap("MOV SS from nothing, no such selector", GP, 0xfffc);
    *window = id;
}

void test_operands(void) {
    if (PROT32) {
        paging_on();
    }
    window_reset();
    smap();
    crossing();
    stepping();
    registers();
#if PAE
    pdptes();
#endif
#if LONG64
    keys();
    canonical();
#else
    segments();
    stack();
#endif
    window_reset();
    if (PROT32) {
        paging_off();
    }
}
#else
void test_operands(void) {
    skip("all", "no device memory below 1 MiB");
}
#endif
