/* Self-modifying code (SDM Vol. 3A, "Self-Modifying Code"). */
#include "paging.h"
#include "test.h"

#define CODE_BYTES 6 /* MOV EAX, imm32; RET */

static u8 space[REAL16 ? 64 : 2 * 4096] __attribute__((aligned(REAL16 ? 16 : 4096)));

static void emit(volatile u8 *code, u32 value) {
    code[0] = 0xb8;
#if REAL16
    /* MOV AX, imm16; CWDE; RETL with its operand-size prefix. */
    code[1] = value;
    code[2] = value >> 8;
    code[3] = 0x66;
    code[4] = 0xc3;
#else
    code[1] = value;
    code[2] = value >> 8;
    code[3] = value >> 16;
    code[4] = value >> 24;
    code[5] = 0xc3;
#endif
}

static u32 run(const volatile u8 *code) {
    u32 value = 0;
    asm volatile("call *%1" : "+a"(value) : "r"(code) : "memory");
    return value & 0xffff;
}

static void plain(void) {
    bool right = true;
    for (u32 turn = 0; turn < 100; turn++) {
        emit(space, turn * 7);
        right &= run(space) == turn * 7;
    }
    check_true("code that is written is run", right);
}

/* The instruction right behind the store, past a jump. */
static void ahead(void) {
    u32 value;
    asm volatile("movb $0x22, 1f+1\n\tjmp 1f\n1:\tmovb $0x11, %%al\n\tmovzbl %%al, %0"
                 : "=r"(value)
                 :
                 : "eax", "memory");
    check("an instruction written just ahead", value, 0x22);
}

#if PAGED
static void across_pages(void) {
    bool right = true;
    for (u32 split = 1; split < CODE_BYTES; split++) {
        volatile u8 *code = space + 4096 - split;
        emit(code, 0x1111);
        right &= run(code) == 0x1111;
        emit(code, 0x2222);
        right &= run(code) == 0x2222;
        code[1] = 0x33; /* one half only */
        right &= run(code) == 0x2233;
    }
    check_true("code across two pages", right);
}

/* Written through one address, run at another. */
static void alias(void) {
    if (PROT32) {
        paging_on();
    }
    window_reset();
    *window_pte(1) = (word)window_frame(0) | PTE_P | PTE_W;
    write_cr3(read_cr3());
    bool right = true;
    for (u32 turn = 0; turn < 20; turn++) {
        emit(WINDOW(0) + 0x100, turn);
        right &= run(WINDOW(1) + 0x100) == turn;
    }
    check_true("code written through another address", right);
    emit(window_frame(2), 0x2222);
    emit(window_frame(3), 0x3333);
    *window_pte(1) = (word)window_frame(2) | PTE_P | PTE_W;
    invlpg(WINDOW(1));
    u32 first = run(WINDOW(1));
    *window_pte(1) = (word)window_frame(3) | PTE_P | PTE_W;
    invlpg(WINDOW(1));
    check("code mapped anew", first << 16 | run(WINDOW(1)), 0x22223333);
    window_reset();
    if (PROT32) {
        paging_off();
    }
}
#endif

static void by_string(void) {
    static u8 source[CODE_BYTES];
    emit(source, 0x4444);
    emit(space, 0x5555);
    u32 before = run(space);
    word si = (word)source, di = (word)space, cx = CODE_BYTES;
    asm volatile("rep movsb" : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    check("code written by REP MOVSB", (u64)before << 16 | run(space), 0x55554444);
}

void test_selfmod(void) {
    plain();
    ahead();
    by_string();
#if PAGED
    across_pages();
    alias();
#endif
}
