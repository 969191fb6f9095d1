/* Breakpoints on what a monitor may do in the CPU's place: devices in memory, ports, strings (SDM Vol. 3B, "Data Memory and
 * I/O Breakpoint Exception Conditions"). Not in real mode, whose image has no room for it. */
#include "test.h"

#if PAGED
#include "debug.h"
#include "paging.h"

#define SCRATCH 0x3ff /* the 16550's scratch register */
#define NOBODY  0x5600

/* DR0 at `at`, for accesses of kind `rw` (1 writes, 2 ports, 3 reads and writes) to `length` bytes. */
static void watch(word at, u32 rw, u32 length) {
    write_dr6(0);
    write_dr0(at);
    write_dr7(DR7_RESET | DR7_L0 | rw << 16 | (length - 1) << 18);
}

/* Vector and B0-B3 of the trap that came, with its place: 1 behind the instruction. */
static u32 met(word want) {
    write_dr7(DR7_RESET);
    u32 bits = read_dr6() & 0xf;
    write_dr6(0);
    return trap.vector << 8 | bits << 4 | (trap.vector != NONE && trap.ip == want);
}

#define MET           (DB << 8 | DR6_B0 << 4 | 1)
#define MISSED        (NONE << 8)
#define BEHIND(a, op) ADDRESS_OF("97f", "%" a) op

/* Devices and ports, which a monitor answers in the CPU's place. */
static void ports_watched(void) {
    word want, cr4 = read_cr4();
    u8 byte = 0x5a;
    write_cr4(cr4 | CR4_DE);
    watch(SCRATCH, 2, 1);
    ATTEMPT(BEHIND("0", "outb %%al, %%dx"), : "=&S"(want) : "d"(SCRATCH), "a"(byte) : "memory");
    check("an I/O breakpoint on OUT", met(want), MET);
    watch(0x21, 2, 1);
    ATTEMPT(BEHIND("0", "inb $0x21, %%al"), : "=&S"(want) : : "eax", "memory");
    check("an I/O breakpoint on IN", met(want), MET);
    watch(0x40, 2, 4);
    ATTEMPT(BEHIND("0", "inb $0x42, %%al"), : "=&S"(want) : : "eax", "memory");
    check("an I/O breakpoint of four ports", met(want), MET);
    watch(NOBODY + 1, 2, 1);
    ATTEMPT(BEHIND("0", "inw %%dx, %%ax"), : "=&S"(want) : "d"(NOBODY) : "eax", "memory");
    check("an I/O breakpoint on the second byte of IN AX", met(want), MET);
    watch(SCRATCH, 2, 1);
    ATTEMPT("inb $0x21, %%al", : : : "eax", "memory");
    check("no other port meets it", met(0), MISSED);
    watch(SCRATCH, 3, 1);
    ATTEMPT("inb %%dx, %%al", : : "d"(SCRATCH) : "eax", "memory");
    check("a port meets no data breakpoint", met(0), MISSED);

    word si = (word)&byte, cx = 3;
    watch(SCRATCH, 2, 1);
    ATTEMPT(BEHIND("0", "outsb"), : "=&b"(want), "+S"(si) : "d"(SCRATCH) : "memory");
    check("an I/O breakpoint on OUTSB", met(want), MET);
    static u8 bytes[4];
    word di = (word)bytes;
    watch(SCRATCH, 2, 1);
    ATTEMPT("rep insb", : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check(
        "an I/O breakpoint on the first turn of REP INSB", met(0) << 4 | cx, (MET & ~1u) << 4 | 2);
    write_cr4(cr4);
}

static void strings_watched(void) {
    static u8 bytes[8];
    word want, di = (word)bytes, si = (word)bytes, cx = 4;
    watch((word)bytes, 1, 1);
    ATTEMPT(BEHIND("0", "insb"), : "=&b"(want), "+D"(di) : "d"(SCRATCH) : "memory");
    check("a data breakpoint on what INSB writes", met(want), MET);
    di = (word)bytes;
    watch((word)bytes + 1, 1, 1);
    ATTEMPT("rep insb", : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check(
        "a data breakpoint on the second turn of REP INSB", met(0) << 4 | cx, (MET & ~1u) << 4 | 2);
    check("RF is set between two turns", trap.flags & FLAGS_RF, FLAGS_RF);
    watch((word)bytes, 3, 1);
    ATTEMPT(BEHIND("0", "outsb"), : "=&b"(want), "+S"(si) : "d"(SCRATCH) : "memory");
    check("a data breakpoint on what OUTSB reads", met(want), MET);
    si = (word)bytes;
    watch((word)bytes, 1, 1);
    ATTEMPT("outsb", : "+S"(si) : "d"(SCRATCH) : "memory");
    check("a read does not meet a breakpoint for writes", met(0), MISSED);
    di = (word)bytes;
    cx = 0;
    watch((word)bytes, 3, 1);
    ATTEMPT("rep insb", : "+D"(di), "+c"(cx) : "d"(SCRATCH) : "memory");
    check("REP INSB of nothing meets none", met(0), MISSED);
    cx = 3;
    write_dr1((word)bytes + 1);
    watch((word)bytes, 1, 2);
    write_dr7(read_dr7() | 1 << 20 | 0 << 22); /* DR1 for writes, not enabled */
    ATTEMPT("insw", : "+D"(di) : "d"(SCRATCH) : "memory");
    check("one that is not enabled shows beside one that is", met(0) >> 4, DB << 4 | 3);
}

#define IOAPIC 0xfec00000u

/* The I/O APIC's select register. */
static void memory_watched(void) {
    word want, device = IOAPIC;
    if (PROT32) {
        paging_on();
    }
    static u32 copy[2];
    watch(device, 3, 4);
    ATTEMPT(BEHIND("0", "movl (%1), %%eax"), : "=&S"(want) : "D"(device) : "eax", "memory");
    check("a data breakpoint on a device's register that MOV reads", met(want), MET);
    watch(device, 1, 4);
    ATTEMPT(BEHIND("0", "movl $1, (%1)"), : "=&S"(want) : "D"(device) : "memory");
    check("a data breakpoint on a device's register that MOV writes", met(want), MET);
    watch(device, 1, 4);
    ATTEMPT("movl (%0), %%eax", : : "D"(device) : "eax", "memory");
    check("a device that is read meets none for writes", met(0), MISSED);
    watch(device, 3, 4);
    ATTEMPT(BEHIND("0", "xchgl %%eax, (%1)"), : "=&S"(want) : "D"(device), "a"(1) : "memory");
    check("a data breakpoint on a device's register that XCHG changes", met(want), MET);
    watch(device, 3, 4);
    ATTEMPT(BEHIND("0", "movl (%1), %%edi"), : "=&S"(want), "+D"(device) : : "memory");
    check("and where the address is overwritten", met(want), MET);
    device = IOAPIC;
    word si = device, di = (word)copy, cx = 2;
    watch((word)copy, 1, 4);
    ATTEMPT(BEHIND("0", "movsl"), : "=&b"(want), "+S"(si), "+D"(di) : : "memory");
    check("a data breakpoint on RAM that MOVSD fills from a device", met(want), MET);
    si = device;
    di = (word)copy;
    watch((word)copy, 1, 4);
    ATTEMPT("rep movsl", : "+S"(si), "+D"(di), "+c"(cx) : : "memory");
    check("and the first turn of REP MOVSD", met(0) << 4 | cx, (MET & ~1u) << 4 | 1);
    if (PROT32) {
        paging_off();
    }
}

void test_watch(void) {
    if (on_tcg()) {
        skip("breakpoints on devices and ports", "TCG looks at few of them");
        return;
    }
    ports_watched();
    strings_watched();
    memory_watched();
}
#else
void test_watch(void) {
    skip("all", "the other modes' subject");
}
#endif
