/* The kernel's tests of itself: tasks, watchdogs, interrupts, and what the tests share. They run in the shell's task,
 * which is higher than most of the tasks that they make. */
#include "selftest.h"
#include "check.h"
#include "print.h"

#define IRQ 5 /* nobody's */

static struct {
    u32 checks, failures;
    char order[40];
    u32 length;
    volatile u32 expired, spins;
    volatile bool stop, wrong;
} test;

void check(const char *name, bool condition) {
    print("%s: %s\n", condition ? "PASS" : "FAIL", name);
    test.checks++;
    test.failures += !condition;
}

void note(char mark) {
    if (test.length < sizeof(test.order) - 1) {
        test.order[test.length++] = mark;
        test.order[test.length] = 0;
    }
}

void forget(void) {
    test.length = 0;
    test.order[0] = 0;
}

bool ordered(const char *want) {
    u32 at = 0;
    while (want[at] && want[at] == test.order[at]) {
        at++;
    }
    bool same = want[at] == test.order[at] && at == test.length;
    forget();
    return same;
}

void mark(void *argument) {
    note((char)(u32)argument);
}

static void mark_twice(void *argument) {
    mark(argument);
    task_yield();
    mark(argument);
}

static void mark_later(void *argument) {
    task_delay(3);
    mark(argument);
}

static struct semaphore gate;

static void mark_gated(void *argument) {
    semaphore_take(&gate, FOREVER);
    mark(argument);
}

static void priorities(void) {
    forget();
    task_create("tA", task_self()->priority - 1, mark, (void *)'a');
    note('b');
    check("a higher task runs at once", ordered("ab"));
    task_create("tA", LOW, mark, (void *)'c');
    task_create("tB", MIDDLE, mark, (void *)'b');
    task_create("tC", HIGH, mark, (void *)'a');
    note('0');
    task_delay(3);
    check("lower tasks run by priority when it waits", ordered("0abc"));
    task_create("tA", LOW, mark_twice, (void *)'a');
    task_create("tB", LOW, mark_twice, (void *)'b');
    task_delay(3);
    check("equal tasks take turns", ordered("abab"));

    char want[PRIORITIES + 1] = {0};
    u8 own = task_self()->priority;
    task_set_priority(task_self(), 0);
    for (u32 priority = PRIORITIES;
         priority--;) { /* the lower half, then the higher: there are not 32 slots */
        task_create("tN", priority, mark, (void *)('A' + priority));
        want[priority ^ PRIORITIES / 2] = 'A' + priority;
        if (priority % (PRIORITIES / 2) == 0) {
            task_delay(3);
        }
    }
    task_set_priority(task_self(), own);
    check("every priority is its own", ordered(want));
    bool refused = !task_create("tA", PRIORITIES, mark, NULL) &&
                   !task_set_priority(task_self(), PRIORITIES) && task_self()->priority == own;
    check("there is no priority behind the last", refused);
}

static void suspension(void) {
    struct task *suspended = task_create("tS", LOW, mark, (void *)'s');
    task_suspend(suspended);
    task_delay(3);
    bool quiet = ordered("");
    task_resume(suspended);
    task_delay(3);
    check("a suspended task does not run until resumed", quiet && ordered("s"));
    suspended = task_create("tS", HIGH, mark_later, (void *)'s');
    task_delay(1);
    task_suspend(suspended);
    task_delay(5);
    quiet = ordered("");
    task_resume(suspended);
    task_delay(1);
    check("nor does one that is suspended in its delay", quiet && ordered("s"));
    semaphore_init(&gate, 0, 1);
    suspended = task_create("tS", HIGH, mark_gated, (void *)'s');
    task_delay(1);
    task_suspend(suspended);
    semaphore_give(&gate);
    task_delay(2);
    quiet = ordered("") && !gate.count;
    task_resume(suspended);
    task_delay(1);
    check("nor one that is suspended while it waits", quiet && ordered("s"));
    suspended = task_create("tS", LOW, mark, (void *)'r');
    task_suspend(suspended);
    task_set_priority(suspended, task_self()->priority - 1);
    task_resume(suspended);
    note('s');
    check("a higher task that is resumed runs at once", ordered("rs"));
}

static void expire(void *argument) {
    (void)argument;
    test.expired = test.expired ? 0xbad : ticks;
}

/* Starts itself again. */
static void expire_again(void *watchdog) {
    test.expired++;
    watchdog_start(watchdog, 0, expire_again, watchdog);
}

static void watchdogs(void) {
    static struct timer first, second;
    test.expired = 0;
    u32 flags = interrupts_off();
    u32 before = ticks;
    watchdog_start(&first, 7, expire, NULL);
    watchdog_start(&second, 5, expire, NULL);
    watchdog_cancel(&second);
    interrupts_restore(flags);
    task_delay(20);
    check("a watchdog expires once and in time", test.expired - before == 7);
    test.expired = 0;
    watchdog_start(&first, FOREVER - 1, expire, NULL);
    task_delay(3);
    check("the longest time is not in the past", !test.expired);
    watchdog_start(&first, 0, expire_again, &first);
    before = ticks;
    task_delay(10);
    watchdog_cancel(&first);
    u32 passed = ticks - before;
    check("one that starts itself anew expires at each tick",
        test.expired >= passed && test.expired <= passed + 1);
    before = ticks;
    for (u32 turn = 0; turn < 10; turn++) {
        task_delay(3);
    }
    u32 delayed = ticks - before;
    check("delays are as long as asked for", delayed >= 30 && delayed <= 32);
}

/* Raised by the CPU itself, not by the 8259. It gives the semaphore, and stays until two ticks have come. */
static void long_handler(u64 entered) {
    (void)entered;
    u32 before = ticks;
    semaphore_give(&gate);
    for (u32 turn = 0; ticks - before < 2 && turn < 100000000; turn++) {
    }
    note(ticks - before < 2 ? '-' : 'i');
}

static void interrupts(void) {
    semaphore_init(&gate, 0, 1);
    task_create("tGated", task_self()->priority - 1, mark_gated, (void *)'t');
    irq_connect(IRQ, long_handler);
    asm volatile("int %0" : : "i"(VECTOR_IRQ + IRQ) : "memory");
    note('s');
    irq_connect(IRQ, NULL);
    check("the tick interrupts a handler, and tasks wait for its end", ordered("its"));
}

/* Fills the unit with a pattern, is pre-empted and waits, and looks again. */
static void float_user(void *argument) {
    u32 seed = (u32)argument;
    u32 pattern[4] = {seed, seed * 3, seed * 5, seed * 7}, found[4];
    asm volatile("movups %0, %%xmm0; movups %0, %%xmm7; fildl %0; fildl %1"
                 :
                 : "m"(pattern), "m"(pattern[1]));
    while (!test.stop) {
        u32 integers[2];
        asm volatile("movups %%xmm7, %0" : "=m"(found));
        for (u32 lane = 0; lane < 4; lane++) {
            test.wrong |= found[lane] != pattern[lane];
        }
        asm volatile("fxch; fistl %0; fxch; fistl %1" : "=m"(integers[0]), "=m"(integers[1]));
        test.wrong |= integers[0] != pattern[0] || integers[1] != pattern[1];
        test.spins++;
        if (test.spins % 64 == 0) {
            task_delay(1);
        } else {
            task_yield();
        }
    }
    asm volatile("fninit");
}

static void floats(void) {
    test.stop = test.wrong = false;
    test.spins = 0;
    task_create("tFpuA", LOW, float_user, (void *)0x1111);
    task_create("tFpuB", LOW, float_user, (void *)0x2222);
    task_create("tFpuC", MIDDLE, float_user, (void *)0x3333);
    task_delay(50);
    test.stop = true;
    task_delay(5);
    check("each task has its own FPU and SSE registers", !test.wrong && test.spins > 100);
}

void selftest(void) {
    test.checks = test.failures = 0;
    priorities();
    suspension();
    selftest_sync();
    selftest_mutex();
    watchdogs();
    interrupts();
    floats();
    print("SUMMARY: %u tests, %u failures, 0 skipped\n", test.checks, test.failures);
}
