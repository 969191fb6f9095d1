/* Checks and the summary. */
#include "report.h"

#include "console.h"
#include "test.h"

static struct {
    const char *subject;
    u32 checks, failures, skips;
    bool excused;
    u64 wrong;
    const char *reason;
} state;

/* Cleared in a loaded image (tests/guests/monitor/suite.py), it leaves out the lines of checks that pass: nearly all
 * exits of a run are those of its console. */
volatile u8 passes_shown = 1;

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
    if (got == want && !passes_shown) {
        state.checks++;
        state.excused = false;
        return;
    }
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

bool native(void) {
    return !(cpuid(1, 0).ecx & CPUID_1_ECX_HYPERVISOR) || on_tcg();
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

void finish(void) {
    print("SUMMARY: ");
    print_number(state.checks);
    print(" tests, ");
    print_number(state.failures);
    print(" failures, ");
    print_number(state.skips);
    print(" skipped\n");
    console_drain();
    power_off();
}

void run_subject(const struct subject *subject) {
    state.subject = subject->name;
    subject->run();
    state.excused = false;
}
