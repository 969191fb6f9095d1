/* x87, SSE, AVX state across exits; XSETBV (SDM Vol. 1, "Managing State Using the XSAVE Feature Set"). */
#include "chips.h"
#include "test.h"

#define XCR0_X87    1u
#define XCR0_SSE    2u
#define XCR0_AVX    4u
#define XCR0_AVX512 0xe0u

static u8 pattern[64 * 8] __attribute__((aligned(64)));
static u8 found[64 * 8] __attribute__((aligned(64)));

static u64 xgetbv(void) {
    u32 low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low | (u64)high << 32;
}

static void attempt_xsetbv(u32 index, u64 value) {
    ATTEMPT("xsetbv", : : "c"(index), "a"((u32)value), "d"((u32)(value >> 32)));
}

/* Things that a monitor answers, in between. */
static void disturb(void) {
    for (u32 turn = 0; turn < 20; turn++) {
        cpuid(turn & 1, 0);
        inb(0x21);
        outb(0x3ff, turn);
        rdmsr(IA32_APIC_BASE);
        write_cr0(read_cr0());
        write_cr4(read_cr4());
    }
    pit_start_counting(PIT_HZ / 1000);
    for (u32 turn = 0; turn < 3; turn++) {
        asm volatile("sti; hlt; cli" : : : "memory");
    }
    pit_stop_counting();
}

static void new_pattern(u32 seed) {
    for (u32 byte = 0; byte < sizeof(pattern); byte++) {
        pattern[byte] = seed = seed * 5 + 11;
        found[byte] = 0;
    }
}

static bool same(u32 bytes) {
    for (u32 byte = 0; byte < bytes; byte++) {
        if (pattern[byte] != found[byte]) {
            return false;
        }
    }
    return true;
}

#define EACH(move, register, size, order)                                                          \
    asm volatile(order(move, register "0", 0 * size) "\n\t" order(move, register "1",              \
        1 * size) "\n\t" order(move, register "2", 2 * size) "\n\t" order(move, register "3",      \
        3 * size) "\n\t" order(move, register "7", 4 * size)                                       \
                 :                                                                                 \
                 : "r"(order##_PLACE)                                                              \
                 : "memory")
#define LOAD(move, register, offset)  move " " #offset "(%0), %%" register
#define STORE(move, register, offset) move " %%" register ", " #offset "(%0)"
#define LOAD_PLACE                    pattern
#define STORE_PLACE                   found

static void x87(void) {
    static const u16 control = 0x0a7f;
    u16 got;
    u64 integer = 0;
    asm volatile("fninit; fldcw %0; fld1; fldpi; fldln2" : : "m"(control));
    disturb();
    asm volatile("fnstcw %0; fstp %%st; fistpll %1; fstp %%st; fninit" : "=m"(got), "=m"(integer));
    check("x87 control word survives exits", got, control);
    check("x87 stack survives exits", integer, 4); /* pi, rounded up */
}

static void sse(void) {
    static const u32 mxcsr = 0x5f80;
    u32 got;
    new_pattern(1);
    EACH("movups", "xmm", 16, LOAD);
    asm volatile("ldmxcsr %0" : : "m"(mxcsr));
    disturb();
    EACH("movups", "xmm", 16, STORE);
    asm volatile("stmxcsr %0" : "=m"(got));
    check_true("XMM registers survive exits", same(5 * 16));
    check("MXCSR survives exits", got, mxcsr);
#if LONG64
    new_pattern(2);
    asm volatile("movups (%0), %%xmm8; movups 16(%0), %%xmm15" : : "r"(pattern));
    disturb();
    asm volatile("movups %%xmm8, (%0); movups %%xmm15, 16(%0)" : : "r"(found) : "memory");
    check_true("XMM8 and XMM15 survive exits", same(32));
#endif
    static u8 area[512] __attribute__((aligned(16)));
    asm volatile("fxsave %0; xorps %%xmm0, %%xmm0; fxrstor %0" : "+m"(area));
    static const u32 masked = 0x1f80;
    asm volatile("ldmxcsr %0" : : "m"(masked));
    static const u32 reserved = 0x10000;
    ATTEMPT("ldmxcsr %0", : : "m"(reserved));
    excuse(on_tcg(), NO_TRAP, "TCG does not check MXCSR");
    check_trap("MXCSR refuses reserved bits", GP, 0);
    asm volatile("ldmxcsr %0" : : "m"(masked));
}

static void avx(void) {
#if REAL16
    ATTEMPT(".byte 0xc5, 0xf8, 0x77",
            :); /* VZEROUPPER; LDS in real mode, whose operand may not be a register */
    excuse(on_tcg(), NO_TRAP, "TCG knows AVX in real mode");
    check_trap("AVX in real mode is #UD", UD, 0);
#else
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_AVX)) {
        skip("YMM registers survive exits", "no AVX");
        return;
    }
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE | XCR0_AVX);
    new_pattern(3);
    EACH("vmovups", "ymm", 32, LOAD);
    disturb();
    EACH("vmovups", "ymm", 32, STORE);
    check_true("YMM registers survive exits", same(5 * 32));
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE);
    ATTEMPT("vzeroupper", :);
    check_trap("AVX without its bit in XCR0 is #UD", UD, 0);
    if (!(cpuid_leaf(7, 0).ebx >> 16 & 1)) {
        skip("ZMM registers survive exits", "no AVX-512");
        return;
    }
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_AVX512);
    check_trap("XCR0 takes the AVX-512 bits", NONE, 0);
    new_pattern(4);
    EACH("vmovups", "zmm", 64, LOAD);
    u32 mask = 0x5aa5;
    asm volatile("kmovw %0, %%k3" : : "r"(mask));
    disturb();
    EACH("vmovups", "zmm", 64, STORE);
    asm volatile("kmovw %%k3, %0" : "=r"(mask));
    check_true("ZMM registers survive exits", same(5 * 64));
    check("mask registers survive exits", mask, 0x5aa5);
#endif
}

static void xsetbv(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_XSAVE)) {
        ATTEMPT("xgetbv", : : "c"(0) : "eax", "edx");
        check_trap("XGETBV without XSAVE is #UD", UD, 0);
        skip("XCR0 round trip", "no XSAVE");
        return;
    }
    word cr4 = read_cr4();
    write_cr4(cr4 & ~(word)CR4_OSXSAVE);
    attempt_xsetbv(0, 1);
    check_trap("XSETBV without CR4.OSXSAVE is #UD", UD, 0);
    ATTEMPT("xgetbv", : : "c"(0) : "eax", "edx");
    check_trap("XGETBV without CR4.OSXSAVE is #UD", UD, 0);
    write_cr4(cr4 | CR4_OSXSAVE);
    u64 old = xgetbv();
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE);
    check("XCR0 round trip", xgetbv(), XCR0_X87 | XCR0_SSE);
    attempt_xsetbv(0, XCR0_SSE);
    check_trap("XCR0 refuses to lack x87", GP, 0);
    attempt_xsetbv(0, XCR0_X87 | XCR0_AVX);
    check_trap("XCR0 refuses AVX without SSE", GP, 0);
    attempt_xsetbv(0, 1ull << 63 | 1);
    check_trap("XCR0 refuses bit 63", GP, 0);
    attempt_xsetbv(0, ~0ull);
    check_trap("XCR0 refuses all bits", GP, 0);
    attempt_xsetbv(1, 1);
    check_trap("XSETBV refuses XCR1", GP, 0);
    check("XCR0 is as before the refusals", xgetbv(), XCR0_X87 | XCR0_SSE);
    attempt_xsetbv(0, XCR0_X87);
    u32 small = cpuid(0xd, 0).ebx;
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE | (cpuid(1, 0).ecx & CPUID_1_ECX_AVX ? XCR0_AVX : 0));
    u32 big = cpuid(0xd, 0).ebx;
    check_true("CPUID leaf 0DH follows XCR0", small >= 576 && big >= small);
    attempt_xsetbv(0, XCR0_X87 | XCR0_SSE);
    avx();
    attempt_xsetbv(0, old);
    check("XCR0 is as before", xgetbv(), old);
    write_cr4(cr4);
}

void test_fpu(void) {
    word cr0 = read_cr0(), cr4 = read_cr4();
    write_cr0((cr0 | CR0_NE | CR0_MP) & ~(word)(CR0_EM | CR0_TS));
    write_cr4(cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT);
    x87();
    sse();
    xsetbv();
    asm volatile("fninit");
    write_cr4(cr4);
    write_cr0(cr0);
}
