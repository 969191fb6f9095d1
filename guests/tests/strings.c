/* INS and OUTS (SDM Vol. 2A, "INS", "OUTS", "REP"). The target is a 16550 in loopback: what is sent comes
 * back in order. The console is silent meanwhile. */
#include "paging.h"
#include "console.h"
#include "test.h"

#define DATA    0x3f8
#define SCRATCH 0x3ff
#define NOBODY  0x5600

static void loopback(bool on) {
    console_drain();
    outb(0x3fc, on ? 0x13 : 0x03);
    outb(0x3fa, 7);
}

/* Sends `count` bytes by REP OUTSB and takes them back by REP INSB; true when they are the same. */
static bool there_and_back(const volatile u8 *source, volatile u8 *target, u32 count) {
    word si = (word)source, di = (word)target, cx = count;
    loopback(true);
    asm volatile("rep outsb" : "+S"(si), "+c"(cx) : "d"(DATA) : "memory");
    bool right = si == (word)source + count && cx == 0;
    console_drain();
    wait_ticks(200000); /* the last byte needs a character time to come in */
    cx = count;
    asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(DATA) : "memory");
    right &= di == (word)target + count && cx == 0;
    loopback(false);
    for (u32 byte = 0; byte < count; byte++) {
        right &= source[byte] == target[byte];
    }
    return right;
}

static void single(void) {
    static u8 byte = 0x5a;
    word si = (word)&byte, di;
    asm volatile("outsb" : "+S"(si) : "d"(SCRATCH) : "memory");
    check("OUTSB writes and advances", (si - (word)&byte) << 8 | inb(SCRATCH), 0x15a);
    byte = 0;
    di = (word)&byte;
    asm volatile("insb" : "+D"(di) : "d"(SCRATCH) : "memory");
    check("INSB reads and advances", (di - (word)&byte) << 8 | byte, 0x15a);
}

static void backwards(void) {
    static u8 bytes[3] = {0x11, 0x22, 0x33};
    word si = (word)&bytes[2], di, cx = 2;
    asm volatile("std; rep outsb; cld" : "+S"(si), "+c"(cx) : "d"(SCRATCH) : "memory");
    check("REP OUTSB with DF=1", (si - (word)bytes) << 8 | inb(SCRATCH), 0x22);
    di = (word)&bytes[2], cx = 2;
    asm volatile("std; rep insb; cld" : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check("REP INSB with DF=1",
        (di - (word)bytes) << 24 | bytes[0] << 16 | bytes[1] << 8 | bytes[2], 0x112222);
}

static void zero_count(void) {
    static u8 byte = 0x77;
    word si = (word)&byte, di = (word)&byte, cx = 0;
    outb(SCRATCH, 0x99);
    asm volatile("rep outsb" : "+S"(si), "+c"(cx) : "d"(SCRATCH) : "memory");
    asm volatile("rep insb" : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check_true("REP with a zero count does nothing",
        si == (word)&byte && di == si && cx == 0 && byte == 0x77 && inb(SCRATCH) == 0x99);
}

static void sizes(void) {
    static volatile u32 buffer[4];
    for (u32 word_size = 2; word_size <= 4; word_size += 2) {
        for (u32 i = 0; i < 4; i++) {
            buffer[i] = 0;
        }
        word di = (word)&buffer[1], cx = 2;
        if (word_size == 2) {
            asm volatile("rep insw" : "+D"(di), "+c"(cx) : "d"(NOBODY) : "memory");
            check_true("REP INSW",
                di == (word)&buffer[2] && buffer[1] == 0xffffffff && !buffer[2] && !buffer[0]);
        } else {
            asm volatile("rep insl" : "+D"(di), "+c"(cx) : "d"(NOBODY) : "memory");
            check_true("REP INSD", di == (word)&buffer[3] && buffer[1] == 0xffffffff &&
                                       buffer[2] == 0xffffffff && !buffer[3] && !buffer[0]);
        }
    }
    word si = (word)buffer, cx = 2;
    asm volatile("rep outsw" : "+S"(si), "+c"(cx) : "d"(NOBODY) : "memory");
    check("REP OUTSW advances by 2", si - (word)buffer, 4);
    si = (word)buffer, cx = 2;
    asm volatile("rep outsl" : "+S"(si), "+c"(cx) : "d"(NOBODY) : "memory");
    check("REP OUTSD advances by 4", si - (word)buffer, 8);
}

static void segments(void) {
#if REAL16
    /* FS starts one byte (0x10 in linear terms) further on. */
    static volatile u8 bytes[32];
    bytes[0x00] = 0x0d;
    bytes[0x10] = 0xf5;
    u16 old;
    word si = (word)bytes;
    asm volatile("movw %%fs, %0; movw %2, %%fs; fs outsb; movw %0, %%fs"
                 : "=&r"(old), "+S"(si)
                 : "r"((u16)1), "d"(SCRATCH));
    check("OUTSB with FS", inb(SCRATCH), 0xf5);
    si = (word)bytes;
    asm volatile("movw %%es, %0; movw %2, %%es; .byte 0x26; outsb; movw %0, %%es"
                 : "=&r"(old), "+S"(si)
                 : "r"((u16)1), "d"(SCRATCH));
    check("OUTSB with ES", inb(SCRATCH), 0xf5);
    word di = (word)bytes;
    asm volatile("movw %%es, %0; movw %2, %%es; insb; movw %0, %%es"
                 : "=&r"(old), "+D"(di)
                 : "r"((u16)1), "d"(SCRATCH)
                 : "memory");
    check("INSB goes to ES", bytes[0x10] << 8 | bytes[0], 0xf50d);
#endif
}

static void address_size(void) {
    __attribute__((unused)) static volatile u8 bytes[2];
    bytes[0] = 0x3e;
    outb(SCRATCH, 0);
#if LONG64
    u64 si = (word)bytes | 0xffffffff00000000ull;
    asm volatile("addr32 outsb" : "+S"(si) : "d"(SCRATCH) : "memory");
    check("OUTSB with a 32-bit address", inb(SCRATCH), 0x3e);
    check("OUTSB with a 32-bit address writes ESI", si, (word)bytes + 1);
    u64 di = (word)bytes | 0xffffffff00000000ull, cx = 0xffffffff00000001ull;
    outb(SCRATCH, 0x4d);
    asm volatile("addr32 rep insb" : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check_true("REP INSB with a 32-bit address and count",
        bytes[0] == 0x4d && (u32)cx == 0 && (u32)di == (word)bytes + 1);
#elif REAL16
    u32 si = (word)bytes | 0x12340000;
    asm volatile("outsb" : "+S"(si) : "d"(SCRATCH) : "memory");
    check("OUTSB with a 16-bit address", inb(SCRATCH), 0x3e);
    check("OUTSB with a 16-bit address keeps the upper half", si, ((word)bytes + 1) | 0x12340000);
    si = (word)bytes;
    bytes[0] = 0x51;
    asm volatile("addr32 outsb" : "+S"(si) : "d"(SCRATCH) : "memory");
    check("OUTSB with a 32-bit address", (si - (word)bytes) << 8 | inb(SCRATCH), 0x151);
#else
    /* The low 64 KiB hold the vector table of real mode and are free for us. */
    volatile u8 *low = (volatile u8 *)0x7000;
    asm("" : "+r"(low));
    *low = 0x6b;
    u32 si = 0x12347000;
    asm volatile("addr16 outsb" : "+S"(si) : "d"(SCRATCH) : "memory");
    check("OUTSB with a 16-bit address", inb(SCRATCH), 0x6b);
    check("OUTSB with a 16-bit address keeps the upper half", si, 0x12347001);
#endif
}

#if PAGED
/* Frames next to each other in the window are not next to each other in memory. */
static void pages(void) {
    if (PROT32) {
        paging_on();
    }
    window_reset();
    pte_t first = *window_pte(1);
    *window_pte(1) = *window_pte(3);
    *window_pte(3) = first;
    write_cr3(read_cr3());
    volatile u8 *source = WINDOW(1) - 5, *target = WINDOW(5) - 3;
    for (u32 byte = 0; byte < 12; byte++) {
        source[byte] = 0x40 + byte;
    }
    check_true("REP OUTSB and INSB across pages", there_and_back(source, target, 12));
    check("OUTSB took the second page's frame", window_frame(3)[0], 0x45);

    word si = (word)(WINDOW(2) - 2), cx = 5;
    *window_pte(2) = 0;
    invlpg(WINDOW(2));
    ATTEMPT("rep outsb", : "+S"(si), "+c"(cx) : "d"(SCRATCH) : "memory");
    check_trap("REP OUTSB into a missing page", PF, 0);
    check("the fault's CR2", trap.cr2, (word)WINDOW(2));
    check("the fault comes after two bytes", (si - (word)WINDOW(2)) << 8 | cx, 3);

    word di = (word)(WINDOW(2) - 1);
    cx = 3;
    outb(SCRATCH, 0x21);
    ATTEMPT("rep insb", : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check_trap("REP INSB into a missing page", PF, PF_W);
    check("that fault comes after one byte", (di - (word)WINDOW(2)) << 8 | cx, 2);
    check("that byte has arrived", window_frame(3)[PAGE - 1], 0x21);

    write_cr0(read_cr0() | CR0_WP);
    *window_pte(2) = (word)window_frame(2) | PTE_P;
    invlpg(WINDOW(2));
    di = (word)WINDOW(2);
    ATTEMPT("insb", : "+D"(di) : "d"(SCRATCH) : "memory");
    check_trap("INSB into a read-only page", PF, PF_P | PF_W);
    check("the fault leaves EDI", di, (word)WINDOW(2));
    window_reset();
    if (PROT32) {
        paging_off();
    }
}
#endif

static void bad_addresses(void) {
#if LONG64
    u64 si = 0x8000000000000000ull;
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    check_trap("OUTSB from a non-canonical address", GP, 0);
    u64 di = 0x8000000000000000ull;
    ATTEMPT("insb", : "+D"(di) : "d"(SCRATCH) : "memory");
    check_trap("INSB to a non-canonical address", GP, 0);
#elif PROT
    static u8 byte;
    word si = (word)&byte;
    u16 old;
    asm volatile("mov %%fs, %0" : "=r"(old));
    asm volatile("mov %0, %%fs" : : "r"(0));
    ATTEMPT("fs outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    excuse(on_tcg(), NO_TRAP, "TCG does not check segments on access");
    check_trap("OUTSB with a null segment", GP, 0);
    asm volatile("mov %0, %%fs" : : "r"(old));
#else
    u32 si = 0x12345;
    ATTEMPT("addr32 outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    excuse(on_tcg(), NO_TRAP, "TCG does not check limits");
    check_trap("OUTSB past the segment's limit", GP, 0);
    u32 di = 0x12345;
    ATTEMPT("addr32 insb", : "+D"(di) : "d"(SCRATCH) : "memory");
    excuse(on_tcg(), NO_TRAP, "TCG does not check limits");
    check_trap("INSB past the segment's limit", GP, 0);
#endif
}

void test_strings(void) {
    static u8 source[12], target[12];
    for (u32 byte = 0; byte < sizeof(source); byte++) {
        source[byte] = 0x30 + byte * 3;
    }
    check_true("REP OUTSB and INSB keep the order", there_and_back(source, target, sizeof(source)));
    single();
    backwards();
    zero_count();
    sizes();
    segments();
    address_size();
    bad_addresses();
#if PAGED
    pages();
#endif
}
