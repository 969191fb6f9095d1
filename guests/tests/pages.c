/* Paging and page faults (SDM Vol. 3A, "Paging", "Interrupt 14"). */
#include "test.h"

#if PAGED
#include "paging.h"
#include "user.h"

#define TCG_RSVD    "TCG leaves P out of the error code of a reserved bit"
#define FRAME(page) ((pte_t)(word)window_frame(page))

/* Maps page 0 of the window anew. */
static void map(pte_t entry) {
    *window_pte(0) = entry;
    invlpg(WINDOW(0));
}

static void read_page(volatile u8 *gva) {
    ATTEMPT("movb %1, %0", : "=q"((u8){0}) : "m"(*gva));
}

static void write_page(volatile u8 *gva) {
    ATTEMPT("movb $0x5a, %0", : "=m"(*gva));
}

static void call_page(volatile u8 *gva) {
    ATTEMPT_THEN("mov %%" REG_SP ", %%" REG_BX "; call *%0", "mov %%" REG_BX ", %%" REG_SP,
                 :
                 : "r"(gva)
                 : REG_BX, "memory");
}

static void not_present(void) {
    map(0);
    read_page(WINDOW(0) + 0x123);
    check_trap("a read of a missing page", PF, 0);
    check("its CR2", trap.cr2, (word)WINDOW(0) + 0x123);
    write_page(WINDOW(0) + 0xfff);
    check_trap("a write of a missing page", PF, PF_W);
    check("its CR2 is the last byte", trap.cr2, (word)WINDOW(0) + 0xfff);
    pte_t pde = *window_pde();
    *window_pde() = 0;
    write_cr3(read_cr3());
    read_page(WINDOW(1));
    check_trap("a read with a missing table", PF, 0);
    *window_pde() = pde;
    read_page(WINDOW(1));
    check_trap("a present entry needs no flush", NONE, 0);
    u32 got = 0;
    map(FRAME(0) | PTE_P | PTE_W);
    *window_pte(1) = 0;
    invlpg(WINDOW(1));
    ATTEMPT("movl %1, %0", : "=r"(got) : "m"(*(volatile u32 *)(WINDOW(1) - 2)));
    check_trap("a read across into a missing page", PF, 0);
    check("its CR2 is the second page", trap.cr2, (word)WINDOW(1));
}

static void write_protect(void) {
    word cr0 = read_cr0();
    map(FRAME(0) | PTE_P);
    write_cr0(cr0 & ~(word)CR0_WP);
    write_page(WINDOW(0));
    check_trap("a read-only page may be written without CR0.WP", NONE, 0);
    write_cr0(cr0 | CR0_WP);
    write_page(WINDOW(0));
    check_trap("a read-only page may not be written with CR0.WP", PF, PF_P | PF_W);
    read_page(WINDOW(0));
    check_trap("but read", NONE, 0);
    write_cr0(cr0);
}

static void accessed_and_dirty(void) {
    map(FRAME(0) | PTE_P | PTE_W);
    check("untouched: neither A nor D", *window_pte(0) & (PTE_A | PTE_D), 0);
    read_page(WINDOW(0));
    check("a read sets A", *window_pte(0) & (PTE_A | PTE_D), PTE_A);
    write_page(WINDOW(0));
    check("a write sets D", *window_pte(0) & (PTE_A | PTE_D), PTE_A | PTE_D);
    map(FRAME(0) | PTE_P | PTE_W);
    read_page(WINDOW(0));
    check("after INVLPG a read sets A anew", *window_pte(0) & (PTE_A | PTE_D), PTE_A);
}

static void flushes(void) {
    *(volatile u32 *)window_frame(2) = 0x2222;
    *(volatile u32 *)window_frame(3) = 0x3333;
    volatile u32 *gva = (volatile u32 *)WINDOW(0);
    map(FRAME(2) | PTE_P | PTE_W);
    u32 first = *gva;
    map(FRAME(3) | PTE_P | PTE_W);
    check("INVLPG shows the new frame", first << 16 | *gva, 0x22223333);
    *window_pte(0) = FRAME(2) | PTE_P | PTE_W;
    write_cr3(read_cr3());
    check("MOV to CR3 shows the new frame", *gva, 0x2222);
    *window_pte(0) = FRAME(3) | PTE_P | PTE_W;
    word cr4 = read_cr4();
    write_cr4(cr4 ^ CR4_PGE);
    write_cr4(cr4);
    check("a change of CR4.PGE shows the new frame", *gva, 0x3333);
}

static void large(void) {
    word cr4 = read_cr4();
    volatile u32 *gva = (volatile u32 *)(word)(LARGE_VA + 0x100000); /* the image, again */
    volatile u32 *same = (volatile u32 *)0x100000;
    asm("" : "+r"(same));
    *large_pde() = 0 | PTE_P | PTE_W | PTE_PS;
    write_cr3(read_cr3());
    check("a large page reads", *gva, *same);
    check("a large page has A", *large_pde() & (PTE_A | PTE_D), PTE_A);
    *gva = *same;
    check("a large page has D", *large_pde() & (PTE_A | PTE_D), PTE_A | PTE_D);
    *large_pde() = 0 | PTE_P | PTE_PS;
    invlpg(gva);
    word cr0 = read_cr0();
    write_cr0(cr0 | CR0_WP);
    write_page((volatile u8 *)gva);
    check_trap("a read-only large page", PF, PF_P | PF_W);
    write_cr0(cr0);
    *large_pde() = 0 | PTE_P | PTE_W | PTE_PS | (PROT32 ? 1u << 21 : 1u << 13);
    invlpg(gva);
    read_page((volatile u8 *)gva);
    excuse(on_tcg(), TRAP(PF, PF_RSVD), TCG_RSVD);
    check_trap("a reserved bit of a large page", PF, PF_P | PF_RSVD);
    *large_pde() = 0;
    write_cr4(cr4);
    write_cr3(read_cr3());
}

#if !PROT32
static void reserved(void) {
    map(FRAME(0) | PTE_P | PTE_W | 1ull << 51);
    read_page(WINDOW(0));
    excuse(on_tcg(), TRAP(PF, PF_RSVD), TCG_RSVD);
    check_trap("a reserved address bit", PF, PF_P | PF_RSVD);
    write_page(WINDOW(0));
    excuse(on_tcg(), TRAP(PF, PF_RSVD | PF_W), TCG_RSVD);
    check_trap("a reserved address bit, written", PF, PF_P | PF_RSVD | PF_W);
}

static void no_execute(void) {
    if (!(cpuid_leaf(0x80000001, 0).edx & CPUID_80000001_EDX_NX)) {
        skip("a fetch from an NX page", "no NX");
        return;
    }
    window_frame(0)[0] = 0xc3; /* RET */
    u64 efer = rdmsr(IA32_EFER);
    wrmsr(IA32_EFER, efer & ~(u64)EFER_NXE);
    map(FRAME(0) | PTE_P | PTE_W | PTE_NX);
    read_page(WINDOW(0));
    excuse(on_tcg(), TRAP(PF, PF_RSVD), TCG_RSVD);
    check_trap("NX is reserved without EFER.NXE", PF, PF_P | PF_RSVD);
    wrmsr(IA32_EFER, efer | EFER_NXE);
    write_cr3(read_cr3());
    call_page(WINDOW(0));
    check_trap("a fetch from an NX page", PF, PF_P | PF_I);
    read_page(WINDOW(0));
    check_trap("a read from an NX page", NONE, 0);
    map(FRAME(0) | PTE_P | PTE_W);
    call_page(WINDOW(0));
    check_trap("a fetch from the page without NX", NONE, 0);
    wrmsr(IA32_EFER, efer);
}
#endif

#if PAE
static void pointers(void) {
    pdpt[2] |= PTE_W; /* reserved in a PDPTE */
    ATTEMPT("mov %0, %%cr3", : : "r"(read_cr3()) : "memory");
    excuse(on_tcg(), NO_TRAP, "TCG does not load PDPTEs at MOV to CR3");
    check_trap("MOV to CR3 refuses a bad PDPTE", GP, 0);
    pdpt[2] &= ~(u64)PTE_W;
    /* The four entries are cached by MOV to CR3 and by nothing else. */
    u64 old = pdpt[1];
    map(FRAME(0) | PTE_P | PTE_W);
    pdpt[1] = 0;
    invlpg(WINDOW(0));
    read_page(WINDOW(0));
    excuse(on_tcg(), TRAP(PF, 0), "TCG does not cache PDPTEs");
    check_trap("a PDPTE changed in memory has no effect", NONE, 0);
    write_cr3(read_cr3());
    read_page(WINDOW(0));
    check_trap("until MOV to CR3", PF, 0);
    pdpt[1] = old;
    write_cr3(read_cr3());
}
#endif

USER_CODE(user_read, "mov (%" REG_AX "), %ecx; int $0x33");
USER_CODE(user_write, "mov %ecx, (%" REG_AX "); int $0x33");
USER_CODE(user_jump, "jmp *%" REG_AX);

static void user_access(void) {
    word gva = (word)WINDOW(0);
    map(FRAME(0) | PTE_P | PTE_W);
    user_run(user_read_start, user_read_end, 2, gva);
    check_trap("ring 3 reads a supervisor page", PF, PF_P | PF_U);
    user_run(user_write_start, user_write_end, 2, gva);
    check_trap("ring 3 writes a supervisor page", PF, PF_P | PF_U | PF_W);
    map(FRAME(0) | PTE_P | PTE_U);
    user_run(user_read_start, user_read_end, 2, gva);
    check_trap("ring 3 reads a user page", VECTOR_USER, 0);
    user_run(user_write_start, user_write_end, 2, gva);
    check_trap("ring 3 writes a read-only page", PF, PF_P | PF_U | PF_W);
    map(0);
    user_run(user_read_start, user_read_end, 2, gva);
    check_trap("ring 3 reads a missing page", PF, PF_U);
    map(FRAME(0) | PTE_P | PTE_W);
    user_run(user_jump_start, user_jump_end, 2, gva);
    check("ring 3 fetches from a supervisor page", TRAP(trap.vector, trap.error & ~PF_I),
        TRAP(PF, PF_P | PF_U));
    check("its CR2 and IP", trap.cr2 == gva && trap.ip == gva, true);

    struct cpuid leaf = cpuid_leaf(7, 0);
    word cr4 = read_cr4();
    map(FRAME(0) | PTE_P | PTE_W | PTE_U);
    window_frame(0)[0] = 0xc3;
    if (leaf.ebx & CPUID_7_EBX_SMEP) {
        write_cr4(cr4 | CR4_SMEP);
        call_page(WINDOW(0));
        write_cr4(cr4);
        check_trap("SMEP forbids a fetch from a user page", PF, PF_P | PF_I);
    } else {
        skip("SMEP forbids a fetch from a user page", "no SMEP");
    }
    if (leaf.ebx & CPUID_7_EBX_SMAP) {
        write_cr4(cr4 | CR4_SMAP);
        read_page(WINDOW(0));
        check_trap("SMAP forbids a read of a user page", PF, PF_P);
        asm volatile("stac" : : : "memory");
        ATTEMPT("movb %0, %%al", : : "m"(*(volatile u8 *)WINDOW(0)) : "eax");
        asm volatile("clac" : : : "memory");
        write_cr4(cr4);
        check_trap("unless AC is set", NONE, 0);
    } else {
        skip("SMAP forbids a read of a user page", "no SMAP");
    }
}

void test_pages(void) {
    if (PROT32) {
        paging_on();
    }
    window_reset();
    not_present();
    window_reset();
    write_protect();
    accessed_and_dirty();
    flushes();
    large();
#if !PROT32
    reserved();
    no_execute();
#endif
#if PAE
    pointers();
#endif
    window_reset();
    user_access();
    window_reset();
    if (PROT32) {
        paging_off();
        check("without paging CR0.PG is clear", read_cr0() & CR0_PG, 0);
    }
}
#else
void test_pages(void) {
    skip("all", "no paging in real mode");
}
#endif
