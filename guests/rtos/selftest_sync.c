/* Tests of semaphores, message queues, and the console that two tasks print to. */
#include "check.h"
#include "clock.h"
#include "uart.h"

static struct semaphore gate;

static void gated(void *argument) {
    semaphore_take(&gate, FOREVER);
    mark(argument);
}

static void create_gated(void) {
    task_create("tA", LOW, gated, (void *)'c');
    task_create("tB", HIGH, gated, (void *)'a');
    task_create("tC", MIDDLE, gated, (void *)'b');
    task_delay(3);
}

static void semaphores(void) {
    semaphore_init(&gate, 0, 10);
    u32 before = ticks;
    bool taken = semaphore_take(&gate, 10);
    u32 waited = ticks - before;
    check("a semaphore's wait times out", !taken && waited >= 10 && waited <= 12);
    check("a semaphore's wait of 0 does not wait", !semaphore_take(&gate, 0));
    create_gated();
    for (u32 turn = 0; turn < 3; turn++) {
        semaphore_give(&gate);
    }
    task_delay(3);
    check("a semaphore serves by priority", ordered("abc"));
    create_gated();
    semaphore_flush(&gate);
    task_delay(3);
    check("a semaphore that is flushed serves all", ordered("abc") && !semaphore_take(&gate, 0));
    semaphore_init(&gate, 0, 2);
    for (u32 turn = 0; turn < 5; turn++) {
        semaphore_give(&gate);
    }
    bool two = semaphore_take(&gate, 0) && semaphore_take(&gate, 0) && !semaphore_take(&gate, 0);
    check("a semaphore counts to its limit", two);
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

static void receiver(void *argument) {
    (void)argument;
    u32 message;
    queue_receive(&queue, &message, FOREVER);
    note(message);
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

    task_create("tReceiver", LOW, receiver, NULL);
    task_delay(2);
    for (message = 'a'; message < 'd'; message++) {
        queue_send(
            &queue, &message, 0); /* the first ends its wait, and the rest come before it runs */
    }
    task_delay(2);
    right = ordered("a") && queue_receive(&queue, &message, 0) && message == 'b';
    check("who waits for a message has the first", right);
    queue_receive(&queue, &message, 0);
    struct task *task = task_create("tReceiver", LOW, receiver, NULL);
    task_delay(2);
    message = 'a';
    queue_send(&queue, &message, 0);
    task_delete(task);
    for (message = 'b'; queue_send(&queue, &message, 0); message++) {
    }
    right = message - 'b' == COUNT_OF(queue_storage) && queue_receive(&queue, &message, 0);
    check("a task that is deleted as it receives has received", right && message == 'b');
    while (queue_receive(&queue, &message, 0)) {
    }
}

static volatile u32 printed;

/* Carriage returns, which nobody sees. */
static void printer(void *count) {
    for (u32 left = (u32)count; left; left--) {
        uart_write('\r');
    }
    printed++;
}

/* The first task fills the ring, and both wait for room. */
static void console(void) {
    printed = 0;
    task_create("tA", LOW, printer, (void *)3000);
    struct task *second = task_create("tB", LOW, printer, (void *)1000);
    for (u32 left = 3 * clock_hz(); printed < 2 && left; left--) {
        task_delay(1);
    }
    check("two tasks that wait for the console's room both go on", printed == 2);
    if (printed < 2) {
        task_delete(second);
    }
}

void selftest_sync(void) {
    semaphores();
    queues();
    console();
}
