/* Tests of mutexes and priority inheritance. */
#include "check.h"

static struct mutex mutex, second;
static volatile bool released;

/* Busy while it owns the mutex. */
static void owner(void *argument) {
    (void)argument;
    mutex_lock(&mutex, FOREVER);
    while (!released) {
    }
    note('l');
    mutex_unlock(&mutex);
    note('e');
}

static void waiter(void *argument) {
    mutex_lock(&mutex, FOREVER);
    mark(argument);
    mutex_unlock(&mutex);
}

static void impatient_waiter(void *argument) {
    note(mutex_lock(&mutex, (u32)argument) ? 'l' : 't');
}

static void late_spinner(void *argument) {
    (void)argument;
    task_delay(5);
    for (u32 before = ticks; ticks - before < 20;) {
    }
    note('m');
}

static void late_waiter(void *argument) {
    task_delay(5);
    waiter(argument);
}

static void chain_owner(void *argument) {
    (void)argument;
    mutex_lock(&second, FOREVER);
    waiter((void *)'c');
    mutex_unlock(&second);
}

static void chain_waiter(void *argument) {
    (void)argument;
    mutex_lock(&second, FOREVER);
    note('w');
    mutex_unlock(&second);
}

static struct task *create_owner(u8 priority) {
    released = false;
    struct task *task = task_create("tOwner", priority, owner, NULL);
    task_delay(2);
    return task;
}

static struct task *create_waiter(u8 priority, char name) {
    struct task *task = task_create("tWaiter", priority, waiter, (void *)(u32)name);
    task_delay(2);
    return task;
}

static void release(void) {
    released = true;
    task_delay(40);
}

static void inheritance(void) {
    struct task *low = create_owner(LOW);
    task_create("tMiddle", MIDDLE, late_spinner, NULL);
    task_create("tHigh", HIGH, late_waiter, (void *)'h');
    task_delay(10);
    check("the owner inherits the waiter's priority",
        low->priority == HIGH && low->base_priority == LOW);
    release();
    check("and so the waiter is not held up by a middle task", ordered("lhme"));
    create_owner(LOW);
    task_create("tEqual", LOW, mark, (void *)'=');
    create_waiter(HIGH, 'h');
    release();
    check("the owner then goes on before its equals", ordered("lhe="));

    mutex_lock(&mutex, FOREVER);
    low = task_create("tChain", LOW, chain_owner, NULL);
    task_delay(2);
    task_create("tWaiter", HIGH, chain_waiter, NULL);
    task_delay(2);
    check("priority goes along a chain of mutexes", low->priority == HIGH);
    bool again = mutex_lock(&mutex, 0);
    mutex_unlock(&mutex);
    mutex_unlock(&mutex);
    task_delay(3);
    check("an owner may lock its mutex again", again && ordered("cw"));
    mutex_lock(&mutex, FOREVER);
    struct task *task = create_waiter(HIGH, 'h');
    check("a higher owner inherits nothing",
        task_self()->priority == task_self()->base_priority && task->waits_for);
    mutex_unlock(&mutex);
    task_delay(2);
    forget();
}

/* Waits end in other ways than by the owner's unlocking, and priorities change meanwhile. */
static void changes(void) {
    struct task *low = create_owner(LOW);
    task_create("tHigh", HIGH, impatient_waiter, (void *)5);
    task_delay(2);
    bool lent = low->priority == HIGH;
    task_delay(6);
    check("a wait that times out takes its priority back at once",
        lent && low->priority == LOW && ordered("t"));
    release();
    forget();

    mutex_lock(&mutex, FOREVER);
    struct task *next = create_owner(MIDDLE);
    mutex_unlock(&mutex); /* `next` owns it, and has not run yet */
    create_waiter(HIGH, 'h');
    check("an owner inherits before it knows that it is one", next->priority == HIGH);
    release();
    forget();

    low = create_owner(LOW);
    struct task *high = create_waiter(MIDDLE, 'w');
    task_set_priority(low, LOW + 2);
    check("an owner's new priority leaves what it inherits",
        low->priority == MIDDLE && low->base_priority == LOW + 2);
    task_set_priority(high, HIGH);
    lent = low->priority == HIGH;
    task_set_priority(high, LOW + 1);
    check("a waiter's new priority is lent at once", lent && low->priority == LOW + 1);
    release();
    check("and given back", ordered("lwe"));
}

static void deletion(void) {
    struct task *low = create_owner(LOW);
    struct task *high = create_waiter(HIGH, 'h');
    task_delete(high);
    check("a waiter that is deleted lends nothing", low->priority == LOW);
    create_waiter(HIGH, 'h');
    task_delete(low);
    task_delay(2);
    check("what a deleted task owned goes to who waits", ordered("h") && !mutex.owner);
}

void selftest_mutex(void) {
    mutex_init(&mutex);
    mutex_init(&second);
    inheritance();
    changes();
    deletion();
}
