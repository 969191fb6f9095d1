/* Console, checks, summary and power off. */
#include "test.h"

#include "report.h"

#define COM1     0x3f8
#define LSR      5
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define FIFO     16

static struct {
    const char *subject;
    u32 checks, failures, skips;
    bool excused;
    u64 wrong;
    const char *reason;
} state;

/* One look at the LSR for each FIFO full: under a monitor each is an exit. */
static void print_char(char c) {
    static u32 room;
    if (room == 0) {
        while (!(inb(COM1 + LSR) & LSR_THRE)) {
            pause();
        }
        room = FIFO;
    }
    room--;
    outb(COM1, c);
}

void print(const char *text) {
    for (; *text; text++) {
        if (*text == '\n') {
            print_char('\r');
        }
        print_char(*text);
    }
}

void print_hex(u64 value) {
    int digits = 1;
    while (digits < 16 && value >> (digits * 4)) {
        digits++;
    }
    print("0x");
    while (digits--) {
        print_char("0123456789abcdef"[(value >> (digits * 4)) & 15]);
    }
}

static void print_count(u32 value) {
    if (value >= 10) {
        print_count(value / 10);
    }
    print_char('0' + value % 10);
}

void console_drain(void) {
    while (!(inb(COM1 + LSR) & LSR_TEMT)) {
        pause();
    }
}

void console_init(void) {
    outb(COM1 + 1, 0); /* no interrupts */
    outb(COM1 + 3, 0x80); /* DLAB: divisor 1, 115200 baud */
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3); /* 8N1 */
    outb(COM1 + 2, 7); /* FIFOs on and empty */
    outb(COM1 + 4, 3); /* DTR, RTS */
}

static void verdict(const char *outcome, const char *name) {
    print(outcome);
    print(": ");
    print(state.subject);
    print(" ");
    print(name);
    state.checks++;
}

void skip(const char *name, const char *reason) {
    verdict("SKIP", name);
    print(": ");
    print(reason);
    print("\n");
    state.skips++;
    state.excused = false;
}

void excuse(bool engine, u64 wrong, const char *reason) {
    state.excused = engine;
    state.wrong = wrong;
    state.reason = reason;
}

void check(const char *name, u64 got, u64 want) {
    if (got == want) {
        verdict("PASS", name);
    } else if (state.excused && got == state.wrong) {
        skip(name, state.reason);
        return;
    } else {
        verdict("FAIL", name);
        print(": got ");
        print_hex(got);
        print(", want ");
        print_hex(want);
        state.failures++;
    }
    print("\n");
    state.excused = false;
}

void check_true(const char *name, bool condition) {
    check(name, condition, true);
}

void check_trap(const char *name, u32 vector, u32 error) {
    check(name, TRAP(trap.vector, trap.error), TRAP(vector, error));
}

bool on_tcg(void) {
    struct cpuid leaf = cpuid(0x40000000, 0);
    return leaf.ebx == 0x54474354 && leaf.ecx == 0x43544743 && leaf.edx == 0x47435447;
}

bool wait_for(volatile u32 *counter, u32 count) {
    for (u32 turn = 0; turn < 20000000; turn++) {
        if (*counter >= count) {
            return true;
        }
        pause();
    }
    return *counter >= count;
}

void wait_ticks(u32 ticks) {
    u64 start = rdtsc();
    while (rdtsc() - start < ticks) {
        pause();
    }
}

void lost(const char *what, u64 vector, u64 error, u64 ip) {
    print("\nFAIL: ");
    print(state.subject);
    print(" ");
    print(what);
    print(": vector ");
    print_hex(vector);
    print(" error ");
    print_hex(error);
    print(" at ");
    print_hex(ip);
    print("\n");
    state.checks++;
    state.failures++;
    finish();
}

/* Power off: PM1a_CNT with SLP_EN and the type of Pcanel's S5, then with QEMU's, then as Bochs's BIOS sets
 * it up, then Bochs's own shutdown port. */
static void __attribute__((noreturn)) power_off(void) {
    outw(0x604, 0x3400);
    outw(0x604, 0x2000);
    outw(0xb004, 0x2000);
    for (const char *c = "Shutdown"; *c; c++) {
        outb(0x8900, *c);
    }
    for (;;) {
        asm volatile("cli; hlt");
    }
}

void finish(void) {
    print("SUMMARY: ");
    print_count(state.checks);
    print(" tests, ");
    print_count(state.failures);
    print(" failures, ");
    print_count(state.skips);
    print(" skipped\n");
    console_drain();
    power_off();
}

void run_suite(void) {
    for (u32 row = 0; row < suite_size; row++) {
        state.subject = suite[row].name;
        suite[row].run();
        state.excused = false;
    }
    finish();
}
