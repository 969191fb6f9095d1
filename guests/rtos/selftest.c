/* The kernel's tests of itself. They run in the shell's task, which is higher than the tasks they make. */
#include "selftest.h"
#include "clock.h"
#include "kernel.h"
#include "print.h"

#define LOW    24
#define MIDDLE 20
#define HIGH   16
#define IRQ    5 /* nobody's */

static struct {
    u32 checks, failures;
    char order[40];
    u32 length;
    struct semaphore gate;
    struct mutex mutex, second;
    volatile u32 expired, spins;
    volatile bool stop, wrong;
} test;

static void check(const char *name, bool condition) {
    print("%s: %s\n", condition ? "PASS" : "FAIL", name);
    test.checks++;
    test.failures += !condition;
}

static void note(char mark) {
    if (test.length < sizeof(test.order) - 1) {
        test.order[test.length++] = mark;
        test.order[test.length] = 0;
    }
}

static void forget(void) {
    test.length = 0;
    test.order[0] = 0;
}

static bool ordered(const char *want) {
    u32 at = 0;
    while (want[at] && want[at] == test.order[at]) {
        at++;
    }
    bool same = want[at] == test.order[at] && at == test.length;
    forget();
    return same;
}

static void mark(void *argument) {
    note((char)(u32)argument);
}

static void mark_twice(void *argument) {
    mark(argument);
    task_yield();
    mark(argument);
}

static void gated(void *argument) {
    semaphore_take(&test.gate, FOREVER);
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
    for (u8 priority = PRIORITIES - 2; priority > task_self()->priority; priority--) {
        task_create(
            "tN", priority, mark, (void *)(u32)('A' + priority - task_self()->priority - 1));
        if ((priority & 7) == 0) {
            task_delay(2); /* not more tasks at a time than there are slots */
        }
    }
    task_delay(3);
    check(
        "every priority is its own", test.length == (u32)(PRIORITIES - 2 - task_self()->priority));
    forget();
    struct task *suspended = task_create("tS", LOW, mark, (void *)'s');
    task_suspend(suspended);
    task_delay(3);
    bool quiet = ordered("");
    task_resume(suspended);
    task_delay(3);
    check("a suspended task does not run until resumed", quiet && ordered("s"));
}

static void semaphores(void) {
    semaphore_init(&test.gate, 0, 10);
    u32 before = ticks;
    bool taken = semaphore_take(&test.gate, 10);
    u32 waited = ticks - before;
    check("a semaphore's wait times out", !taken && waited >= 10 && waited <= 12);
    check("a semaphore's wait of 0 does not wait", !semaphore_take(&test.gate, 0));
    task_create("tA", LOW, gated, (void *)'c');
    task_create("tB", HIGH, gated, (void *)'a');
    task_create("tC", MIDDLE, gated, (void *)'b');
    task_delay(3);
    for (u32 turn = 0; turn < 3; turn++) {
        semaphore_give(&test.gate);
    }
    task_delay(3);
    check("a semaphore serves by priority", ordered("abc"));
    semaphore_init(&test.gate, 0, 2);
    for (u32 turn = 0; turn < 5; turn++) {
        semaphore_give(&test.gate);
    }
    bool two = semaphore_take(&test.gate, 0) && semaphore_take(&test.gate, 0) &&
               !semaphore_take(&test.gate, 0);
    check("a semaphore counts to its limit", two);
}

static void low_owner(void *argument) {
    (void)argument;
    mutex_lock(&test.mutex, FOREVER);
    for (u32 before = ticks; ticks - before < 20;) {
    }
    note('l');
    mutex_unlock(&test.mutex);
    note('e');
}

static void middle_spinner(void *argument) {
    (void)argument;
    task_delay(5);
    for (u32 before = ticks; ticks - before < 50;) {
    }
    note('m');
}

static void high_waiter(void *argument) {
    (void)argument;
    task_delay(5);
    mutex_lock(&test.mutex, FOREVER);
    note('h');
    mutex_unlock(&test.mutex);
}

static void chain_owner(void *argument) {
    (void)argument;
    mutex_lock(&test.second, FOREVER);
    mutex_lock(&test.mutex, FOREVER);
    note('c');
    mutex_unlock(&test.mutex);
    mutex_unlock(&test.second);
}

static void chain_waiter(void *argument) {
    (void)argument;
    mutex_lock(&test.second, FOREVER);
    note('w');
    mutex_unlock(&test.second);
}

static void inheritance(void) {
    mutex_init(&test.mutex);
    mutex_init(&test.second);
    struct task *low = task_create("tLow", LOW, low_owner, NULL);
    task_create("tMiddle", MIDDLE, middle_spinner, NULL);
    task_create("tHigh", HIGH, high_waiter, NULL);
    task_delay(10);
    check("the owner inherits the waiter's priority",
        low->priority == HIGH && low->base_priority == LOW);
    task_delay(90);
    check("and so the waiter is not held up by a middle task", ordered("lhme"));

    mutex_lock(&test.mutex, FOREVER);
    struct task *owner = task_create("tOwner", LOW, chain_owner, NULL);
    task_delay(2);
    task_create("tWaiter", HIGH, chain_waiter, NULL);
    task_delay(2);
    check("priority goes along a chain of mutexes", owner->priority == HIGH);
    bool again = mutex_lock(&test.mutex, 0);
    mutex_unlock(&test.mutex);
    mutex_unlock(&test.mutex);
    task_delay(3);
    check("an owner may lock its mutex again", again && ordered("cw"));
    mutex_lock(&test.mutex, FOREVER);
    struct task *impatient = task_create("tA", HIGH, high_waiter, NULL);
    task_delay(10);
    check("a higher owner inherits nothing",
        task_self()->priority == task_self()->base_priority && impatient->waits_for);
    mutex_unlock(&test.mutex);
    task_delay(2);
    forget();
}

static struct queue queue;
static u32 queue_storage[4];

static void sender(void *argument) {
    (void)argument;
    for (u32 message = 100; message < 110; message++) {
        queue_send(&queue, &message, FOREVER);
    }
    note('s');
}

static void queues(void) {
    queue_init(&queue, queue_storage, sizeof(u32), COUNT_OF(queue_storage));
    u32 message = 0;
    check("an empty queue times out", !queue_receive(&queue, &message, 3));
    task_create("tSender", LOW, sender, NULL);
    task_delay(3);
    bool blocked = ordered("");
    bool right = true;
    for (u32 want = 100; want < 110; want++) {
        right &= queue_receive(&queue, &message, 5) && message == want;
    }
    task_delay(2);
    check("a full queue holds its sender back", blocked && ordered("s"));
    check(
        "a queue keeps the order and loses nothing", right && !queue_receive(&queue, &message, 0));
}

static void expire(void *argument) {
    (void)argument;
    test.expired = test.expired ? 0xbad : ticks;
}

static void watchdogs(void) {
    static struct timer first, second;
    test.expired = 0;
    u32 before = ticks;
    watchdog_start(&first, 7, expire, NULL);
    watchdog_start(&second, 5, expire, NULL);
    watchdog_cancel(&second);
    task_delay(20);
    check("a watchdog expires once and in time", test.expired - before == 7);
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
    semaphore_give(&test.gate);
    for (u32 turn = 0; ticks - before < 2 && turn < 100000000; turn++) {
    }
    note(ticks - before < 2 ? '-' : 'i');
}

static void interrupts(void) {
    semaphore_init(&test.gate, 0, 1);
    task_create("tGated", task_self()->priority - 1, gated, (void *)'t');
    irq_connect(IRQ, long_handler);
    asm volatile("int %0" : : "i"(VECTOR_IRQ + IRQ) : "memory");
    note('s');
    irq_connect(IRQ, NULL);
    check("the tick interrupts a handler, and tasks wait for its end", ordered("its"));
    struct task *suspended = task_create("tS", LOW, mark, (void *)'r');
    task_suspend(suspended);
    task_set_priority(suspended, task_self()->priority - 1);
    task_resume(suspended);
    note('s');
    check("a higher task that is resumed runs at once", ordered("rs"));
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
    semaphores();
    inheritance();
    queues();
    watchdogs();
    interrupts();
    floats();
    print("SUMMARY: %u tests, %u failures, 0 skipped\n", test.checks, test.failures);
}
