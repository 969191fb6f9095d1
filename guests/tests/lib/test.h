/* What a test file uses: checks, skips, and traps.
 *
 * A check prints one line, `PASS: subject name` or `FAIL: subject name: got X, want Y`; the subject is
 * the row of the suite that is running. A name stands for one check and must be unique in its subject.
 */
#ifndef TESTS_TEST_H
#define TESTS_TEST_H

#include "cpu.h"

void check(const char *name, u64 got, u64 want);
void check_true(const char *name, bool condition);
void skip(const char *name, const char *reason);

/* The next check, where it gets exactly WRONG and ENGINE is true, is a SKIP with the reason and no FAIL:
 * the engine is known to deviate from the SDM there. It lasts for one check. ENGINE is true for Bochs, which a
 * guest cannot tell from a CPU. */
void excuse(bool engine, u64 wrong, const char *reason);

/* No hypervisor shows: what is known of an engine's own devices does not excuse the monitor's. */
bool native(void);

/* QEMU without KVM, which emulates loosely in many corners: its hypervisor leaf says TCGTCGTCGTCG. */
bool on_tcg(void);

/* Traps. ATTEMPT runs instructions; if they fault, or a trap comes after them, `trap` says so and execution
 * goes on behind them. Its further arguments are the operands of an asm statement, at least ":". */
#define NONE 0xffu

struct trap {
    u32 vector; /* NONE when nothing happened */
    u32 error;
    word ip, flags, cr2, sp;
    u32 count; /* since trap_clear() */
};

extern volatile struct trap trap;
extern volatile word trap_resume;
extern void (*trap_from_user)(void); /* where a trap from ring 3 leads; does not come back */

void trap_clear(void);

#if LONG64
#define RESUME_AT(label) "movq $" label ", trap_resume(%%rip)\n\t"
#else
#define RESUME_AT(label) "movl $" label ", trap_resume\n\t"
#endif

#define ATTEMPT(instructions, ...) ATTEMPT_THEN(instructions, "", __VA_ARGS__)

/* The same with instructions `after` that run in either case, to put the stack right, say. */
#define ATTEMPT_THEN(instructions, after, ...)                                                     \
    do {                                                                                           \
        trap_clear();                                                                              \
        asm volatile(RESUME_AT("97f") instructions "\n97:\t" after "\n\t" __VA_ARGS__);            \
        trap_resume = 0;                                                                           \
    } while (0)

/* In an asm text: the address of a local label into a register. */
#if LONG64
#define ADDRESS_OF(label, operand) "leaq " label "(%%rip), " operand "\n\t"
#else
#define ADDRESS_OF(label, operand) "movl $" label ", " operand "\n\t"
#endif

/* Vector and error code of the last ATTEMPT; real mode has no error codes and ignores `error`. */
void check_trap(const char *name, u32 vector, u32 error);
#define TRAP(vector, error) ((u64)(vector) << 16 | (REAL16 ? 0 : (u16)(error)))
#define NO_TRAP             ((u64)NONE << 16)

/* The registers at a trap or interrupt, as the stubs of this mode push them. */
#if REAL16
struct PACKED frame {
    u32 gs, fs, es, ds;
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector;
    u16 ip, cs, flags;
};
#elif LONG64
struct frame {
    u64 r15, r14, r13, r12, r11, r10, r9, r8;
    u64 rdi, rsi, rbp, rbx, rdx, rcx, rax;
    u64 vector, error, ip, cs, flags, sp, ss;
};
#else
struct frame {
    u32 gs, fs, es, ds;
    u32 edi, esi, ebp, esp, ebx, edx, ecx, eax;
    u32 vector, error, ip, cs, flags;
    u32 user_sp, user_ss; /* only from ring 3 */
};
#endif

/* A hook sees every trap or interrupt of its vector first; true means handled, go back. */
#define VECTORS 64
typedef bool (*trap_hook)(struct frame *frame);
void set_hook(u32 vector, trap_hook hook);

/* Vectors of our own. */
#define VECTOR_PIC      0x20 /* 0x20 to 0x2f: the 8259 pair */
#define VECTOR_INT      0x30 /* for INT n */
#define VECTOR_TIMER    0x31 /* local APIC */
#define VECTOR_IPI      0x32
#define VECTOR_USER     0x33 /* ring 3 comes back by it */
#define VECTOR_SPURIOUS 0x3f

/* Waits until *counter reaches `count`, at most for about a second on any engine. */
bool wait_for(volatile u32 *counter, u32 count);

void wait_ticks(u32 ticks);

/* One row of the suite. */
struct subject {
    const char *name;
    void (*run)(void);
};

extern const struct subject suite[];
extern const u32 suite_size;

#endif
