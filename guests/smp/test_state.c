/* Registers that no MSR holds: general, debug, CR2, x87, SSE, AVX. What one CPU has no other finds. */
#include "suite.h"

#define TURNS 40

static volatile u32 wrong;

static void differs(bool is_wrong) {
    if (is_wrong) {
        __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
    }
}

static void debug_registers(void) {
    u64 self = this_cpu() + 1;
    cli();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u64 dr0, dr1, dr2, dr3, dr7;
        asm volatile(
            "mov %0, %%dr0; mov %1, %%dr1; mov %2, %%dr2; mov %3, %%dr3"
            :
            : "r"(self * 0x1000), "r"(self * 0x2000), "r"(self * 0x3000), "r"(self * 0x4000));
        asm volatile("mov %0, %%dr7" : : "r"(0x400 | (self & 1) << 9));
        barrier();
        asm volatile("mov %%dr0, %0; mov %%dr1, %1; mov %%dr2, %2; mov %%dr3, %3; mov %%dr7, %4"
                     : "=r"(dr0), "=r"(dr1), "=r"(dr2), "=r"(dr3), "=r"(dr7));
        differs(dr0 != self * 0x1000 || dr1 != self * 0x2000 || dr2 != self * 0x3000 ||
                dr3 != self * 0x4000 || dr7 != (0x400 | (self & 1) << 9));
        barrier();
    }
    asm volatile("mov %0, %%dr7" : : "r"(0x400ull));
}

static volatile u32 hits, watched_word;

static bool on_debug(struct frame *frame) {
    (void)frame;
    __atomic_or_fetch(&hits, 1u << this_cpu(), __ATOMIC_SEQ_CST);
    asm volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
    return true;
}

static void set_watch(void) {
    asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(&watched_word), "r"(0xd0402ull));
}

static void clear_watch(void) {
    asm volatile("mov %0, %%dr7" : : "r"(0x400ull));
}

static void touch(void) {
    watched_word++;
}

static void cr2(void) {
    u64 self = this_cpu() + 1;
    cli();
    for (u32 turn = 0; turn < TURNS; turn++) {
        write_cr2(self << 20 | turn);
        barrier();
        differs(read_cr2() != (self << 20 | turn));
        barrier();
    }
}

/* All 15 general registers, over calls of barrier(). */
static void general(void) {
    u64 self = this_cpu() + 1, got;
    for (u32 turn = 0; turn < TURNS * 200; turn++) {
        asm volatile(
            "movq %1, %%r8; leaq 1(%%r8), %%r9; leaq 2(%%r8), %%r10; leaq 3(%%r8), %%r11\n\t"
            "leaq 4(%%r8), %%r12; leaq 5(%%r8), %%r13; leaq 6(%%r8), %%r14; leaq 7(%%r8), %%r15\n\t"
            "leaq 8(%%r8), %%rbx; leaq 9(%%r8), %%rcx; leaq 10(%%r8), %%rdx; leaq 11(%%r8), "
            "%%rsi\n\t"
            "leaq 12(%%r8), %%rdi\n\t"
            "pause\n\t"
            "xorq %%rax, %%rax; addq %%r8, %%rax; addq %%r9, %%rax; addq %%r10, %%rax; addq %%r11, "
            "%%rax\n\t"
            "addq %%r12, %%rax; addq %%r13, %%rax; addq %%r14, %%rax; addq %%r15, %%rax; addq "
            "%%rbx, %%rax\n\t"
            "addq %%rcx, %%rax; addq %%rdx, %%rax; addq %%rsi, %%rax; addq %%rdi, %%rax"
            : "=&a"(got)
            : "m"(self)
            : "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rbx", "rcx", "rdx", "rsi",
            "rdi");
        differs(got != self * 13 + 78);
    }
}

static void fpu_on(void) {
    write_cr0((read_cr0() & ~(u64)(CR0_EM | CR0_TS)) | CR0_MP);
    write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    asm volatile("fninit");
}

static void sse(void) {
    u64 self = (this_cpu() + 1) * 0x0101010101010101;
    fpu_on();
    u16 control = 0x037f - (this_cpu() & 1); /* #I unmasked on the odd ones */
    u32 mxcsr = 0x1f80 | (this_cpu() & 3) << 13; /* rounding */
    asm volatile("fldcw %0; ldmxcsr %1; fildq %2" : : "m"(control), "m"(mxcsr), "m"(self));
    for (u32 turn = 0; turn < TURNS; turn++) {
        u64 got0, got15;
        u16 got_control;
        u32 got_mxcsr;
        asm volatile("movq %0, %%xmm0; movq %0, %%xmm15" : : "r"(self + turn));
        barrier();
        asm volatile("movq %%xmm0, %0; movq %%xmm15, %1; fnstcw %2; stmxcsr %3"
                     : "=r"(got0), "=r"(got15), "=m"(got_control), "=m"(got_mxcsr));
        differs(got0 != self + turn || got15 != self + turn || got_control != control ||
                got_mxcsr != mxcsr);
        barrier();
    }
    u64 top;
    asm volatile("fistpq %0" : "=m"(top));
    differs(top != self);
}

static bool has_avx(void) {
    u32 ecx = cpuid(1, 0).ecx;
    return ecx & CPUID_1_ECX_XSAVE && ecx & CPUID_1_ECX_AVX;
}

static u32 all_features; /* of XCR0 that the CPU has */

/* XCR0 is each CPU's own too: the odd ones leave out what they can. */
static void avx(void) {
    u64 self = (this_cpu() + 1) * 0x0303030303030303;
    fpu_on();
    write_cr4(read_cr4() | CR4_OSXSAVE);
    u32 mine = this_cpu() & 1 ? 7 : all_features;
    asm volatile("xsetbv" : : "a"(mine), "d"(0), "c"(0));
    for (u32 turn = 0; turn < TURNS; turn++) {
        u64 value = self + turn, got[4];
        asm volatile("vmovq %0, %%xmm7; vinsertf128 $1, %%xmm7, %%ymm7, %%ymm7" : : "r"(value));
        barrier();
        u32 low, high;
        asm volatile("vmovups %%ymm7, %0; xgetbv" : "=m"(got), "=a"(low), "=d"(high) : "c"(0));
        differs(got[0] != value || got[2] != value || low != mine);
        barrier();
    }
    asm volatile("vzeroupper");
}

static void check_all(const char *name, void (*function)(void)) {
    wrong = 0;
    run_everywhere(function);
    check(name, wrong, 0);
}

void test_state(void) {
    check_all("general registers", general);
    check_all("debug registers", debug_registers);
    check_all("CR2", cr2);
    set_hook(DB, on_debug);
    run_on(cpus - 1, set_watch);
    run_everywhere(touch);
    check("a watchpoint is one CPU's", hits, 1u << (cpus - 1));
    run_on(cpus - 1, clear_watch);
    set_hook(DB, NULL);
    check_all("x87 and SSE", sse);
    if (has_avx()) {
        all_features = cpuid(0xd, 0).eax & 0xe7;
        check_all("AVX, and XCR0", avx);
    } else {
        skip("AVX, and XCR0", "no AVX");
    }
}
