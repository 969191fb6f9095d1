/* Single-stepping and debug registers (SDM Vol. 3B, "Debug, Branch Profile, TSC, and Intel RDT"). */
#include "debug.h"
#include "test.h"

static volatile u32 steps;
static volatile word first_ip, status;

/* Counts the traps of a stepped stretch and notes where the first one came; 10 traps end it. */
static bool step(struct frame *frame) {
    if (!steps) {
        first_ip = frame->ip;
        status = read_dr6();
    }
    steps++;
    write_dr6(0);
    if (steps == 10) {
        frame->flags &= ~FLAGS_TF;
    }
    return true;
}

/* Steps one instruction: the trap comes at label 2, behind it. POPF itself is not trapped. */
#define STEP(name, instruction)                                                                    \
    do {                                                                                           \
        word want_;                                                                                \
        steps = 0;                                                                                 \
        asm volatile(ADDRESS_OF("2f", "%0") "pushf; pushf; orl $0x100, (%%" REG_SP                 \
                                            "); popf; " instruction "\n2: popf"                    \
                     : "=&S"(want_)                                                                \
                     :                                                                             \
                     : "eax", REG_BX, "ecx", "edx", REG_DI, "memory", "cc");                       \
        check(name, first_ip, want_);                                                              \
    } while (0)

static void single_step(void) {
    set_hook(DB, step);
    write_dr6(0);
    STEP("a step over NOP", "nop");
    check("its status is DR6.BS", status & (DR6_BS | 0xf), DR6_BS);
    check("it traps after NOP and after POPF", steps, 2);
    STEP("a step over CPUID", "cpuid");
    check("CPUID traps once", steps, 2);
    STEP("a step over IN", "inb $0x21, %%al");
    STEP("a step over OUT", "outb %%al, $0x80");
    STEP("a step over MOV from CR0", "mov %%cr0, %%" REG_AX);
    STEP("a step over CLTS", "clts");
    STEP("a step over WBINVD", "wbinvd");
    STEP("a step over RDTSC", "rdtsc");
    set_hook(DB, NULL);
}

static void mov_ss(void) {
    set_hook(DB, step);
    word want;
    u32 ss;
    steps = 0;
    asm volatile("mov %%ss, %0" : "=r"(ss));
    asm volatile(ADDRESS_OF("2f", "%0") "pushf; pushf; orl $0x100, (%%" REG_SP
                                        "); popf; mov %1, %%ss; nop\n2: popf"
                 : "=&S"(want)
                 : "r"(ss)
                 : "memory", "cc");
    check("MOV SS holds the step back by one instruction", first_ip, want);
    steps = 0;
    asm volatile(ADDRESS_OF("2f", "%0") "pushf; pushf; orl $0x100, (%%" REG_SP
                                        "); popf; mov %1, %%ss; cpuid\n2: popf"
                 : "=&S"(want)
                 : "D"(ss)
                 : "eax", REG_BX, "ecx", "edx", "memory", "cc");
    check("MOV SS and CPUID: the step comes behind CPUID", first_ip, want);
    set_hook(DB, NULL);
}

static void registers(void) {
    write_dr0(0x12345678);
    write_dr1(0x23456789);
    write_dr2(0x3456789a);
    write_dr3((word)0x456789ab);
    cpuid(0, 0);
    inb(0x21);
    check_true("DR0 to DR3 round trip", read_dr0() == 0x12345678 && read_dr1() == 0x23456789 &&
                                            read_dr2() == 0x3456789a && read_dr3() == 0x456789ab);
    check("DR7 has its fixed bit", read_dr7() & 0xdc00, DR7_RESET);
    write_dr7(DR7_RESET | 0x50);
    cpuid(0, 0);
    check("DR7 round trip", read_dr7(), DR7_RESET | 0x50);
    write_dr7(DR7_RESET);
    write_dr6(DR6_BS);
    cpuid(0, 0);
    check("DR6 round trip", read_dr6() & 0xf00f, DR6_BS);
    write_dr6(0);
    word cr4 = read_cr4();
    write_cr4(cr4 | CR4_DE);
    ATTEMPT(".byte 0x0f, 0x21, 0xe0", : : : REG_AX); /* MOV EAX, DR4 */
    check_trap("DR4 with CR4.DE is #UD", UD, 0);
    write_cr4(cr4 & ~(word)CR4_DE);
    ATTEMPT(".byte 0x0f, 0x21, 0xe0", : : : REG_AX);
    check_trap("DR4 without CR4.DE is DR6", NONE, 0);
    write_cr4(cr4);
#if LONG64
    ATTEMPT("mov %0, %%db7", : : "r"(1ull << 40));
    excuse(on_tcg(), NO_TRAP, "TCG does not check debug registers");
    check_trap("DR7 refuses upper bits", GP, 0);
#endif
}

static void breakpoints(void) {
    static volatile u32 watched;
    word want;
    write_dr6(0);
    write_dr0((word)&watched);
    write_dr7(DR7_RESET | DR7_L0 | DR7_WRITE_4);
    ATTEMPT(ADDRESS_OF("97f", "%0") "movl $1, (%1)", : "=&r"(want) : "r"(&watched) : "memory");
    write_dr7(DR7_RESET);
    check_trap("a data breakpoint is #DB", DB, 0);
    check("it comes behind the write", trap.ip, want);
    check("it says DR6.B0", read_dr6() & 0xf, DR6_B0);

    write_dr6(0);
    ATTEMPT(ADDRESS_OF("1f", "%0") "mov %0, %%db0; mov %1, %%db7\n1: cpuid",
            : "=&S"(want)
            : "D"((word)(DR7_RESET | DR7_L0))
            : "eax", REG_BX, "ecx", "edx", "memory");
    write_dr7(DR7_RESET);
    check_trap("a breakpoint on CPUID is #DB", DB, 0);
    check("it comes before the instruction", trap.ip, want);
    check("it says DR6.B0, too", read_dr6() & 0xf, DR6_B0);

    write_dr6(0);
    write_dr7(DR7_RESET | DR7_GD);
    ATTEMPT("mov %%db0, %0", : "=r"(want));
    u32 bits = read_dr6() & DR6_BD;
    write_dr7(DR7_RESET);
    excuse(on_tcg(), NO_TRAP, "TCG does not look at DR7.GD");
    check_trap("a debug register with DR7.GD is #DB", DB, 0);
    excuse(on_tcg(), 0, "TCG does not look at DR7.GD");
    check("it says DR6.BD", bits, DR6_BD);
    write_dr6(0);
}

/* A REP string instruction traps after each turn. */
static void step_strings(void) {
    static u8 bytes[8];
    word di = (word)bytes, cx = 3;
    set_hook(DB, step);
    steps = 0;
    asm volatile("pushf; pushf; orl $0x100, (%%" REG_SP "); popf; rep insb; popf"
                 : "+D"(di), "+c"(cx)
                 : "d"(0x3ff)
                 : "memory", "cc");
    check("REP INSB traps after each byte", steps << 8 | cx, 0x400);
    set_hook(DB, NULL);
}

void test_debug(void) {
    single_step();
    step_strings();
    mov_ss();
    registers();
    breakpoints();
}
