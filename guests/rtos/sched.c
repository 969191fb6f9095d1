/* Tasks and the scheduler. */
#include "kernel.h"

#define STACK_UNUSED 0xeeeeeeeeu

static struct task tasks[TASKS];
static u8 stacks[TASKS][STACK_BYTES] __attribute__((aligned(16)));
static struct task idle; /* runs when no task is ready; in no list */
static u8 idle_stack[STACK_BYTES] __attribute__((aligned(16)));
static struct node ready[PRIORITIES];
static u32 ready_bitmap; /* bit P: a task of priority P is ready */
static struct task *current;
static u64 switched; /* when `current` came to run */
static u64 started;
static u64 interrupts_used;

void switch_stack(u32 *old, u32 new);
void task_first(void);

void list_init(struct node *list) {
    list->next = list->previous = list;
}

bool list_empty(const struct node *list) {
    return list->next == list;
}

void list_append(struct node *list, struct node *node) {
    node->previous = list->previous;
    node->next = list;
    list->previous->next = node;
    list->previous = node;
}

void list_remove(struct node *node) {
    node->previous->next = node->next;
    node->next->previous = node->previous;
    node->next = node->previous = node;
}

struct task *task_self(void) {
    return current;
}

struct task *task_number(u32 number) {
    return number < TASKS && tasks[number].state != FREE ? &tasks[number] : NULL;
}

/* Before `place` in the ready list of its priority: its head, or its first task. */
static void enter(struct task *task, struct node *place) {
    list_append(place, &task->link);
    ready_bitmap |= 1u << task->priority;
}

/* Nothing keeps it from running any more, unless it is suspended. */
void make_ready(struct task *task) {
    task->state = READY;
    if (!task->suspended) {
        enter(task, &ready[task->priority]);
    }
}

/* Off the list that it is in, if it is in one. */
static void leave(struct task *task) {
    list_remove(&task->link);
    if (list_empty(&ready[task->priority])) {
        ready_bitmap &= ~(1u << task->priority);
    }
}

static struct task *highest(void) {
    return ready_bitmap ? (struct task *)ready[__builtin_ctz(ready_bitmap)].next : &idle;
}

/* Runs the highest ready task; interrupts are off. */
void schedule(void) {
    struct task *next = highest();
    if (next == current) {
        return;
    }
    struct task *old = current;
    u64 now = rdtsc();
    old->used += now - switched;
    switched = now;
    current = next;
    next->switches++;
    fpu_switched();
    switch_stack(&old->sp, next->sp);
}

/* A task has become ready. `flags` are the caller's: where it had interrupts off, or is a handler, the switch comes
 * later. */
void reschedule(u32 flags) {
    if (flags & FLAGS_IF && !in_interrupt()) {
        schedule();
    }
}

/* What an interrupt has used is not the current task's. */
void charge_interrupt(u64 spent) {
    interrupts_used += spent;
    switched += spent;
}

void kernel_times(struct times *times) {
    u32 flags = interrupts_off();
    u64 now = rdtsc();
    current->used += now - switched;
    switched = now;
    times->whole = now - started;
    times->idle = idle.used;
    times->interrupts = interrupts_used;
    for (u32 slot = 0; slot < TASKS; slot++) {
        times->tasks[slot] = tasks[slot].used;
    }
    interrupts_restore(flags);
}

static void copy_name(struct task *task, const char *name) {
    u32 at = 0;
    for (; name[at] && at < NAME_BYTES - 1; at++) {
        task->name[at] = name[at];
    }
    task->name[at] = 0;
}

static void expire_wait(void *argument) {
    struct task *task = argument;
    struct mutex *mutex = task->waits_for;
    list_remove(&task->link);
    task->wait_list = NULL;
    task->waits_for = NULL;
    task->timed_out = true;
    if (mutex) {
        inherit(mutex->owner);
    }
    make_ready(task);
}

/* A free slot, taken: a suspended task; NULL if there is none. */
static struct task *take_slot(void) {
    u32 flags = interrupts_off();
    struct task *task = NULL;
    for (u32 slot = 0; slot < TASKS && !task; slot++) {
        if (tasks[slot].state == FREE) {
            task = &tasks[slot];
            *task = (struct task){.stack = stacks[slot], .state = READY, .suspended = true};
            list_init(&task->link);
            list_init(&task->mutexes);
        }
    }
    interrupts_restore(flags);
    return task;
}

/* A stack from which a switch goes to task_first(). */
static void prepare(struct task *task, task_entry entry, void *argument) {
    u32 *stack = (u32 *)task->stack, *sp = stack + STACK_BYTES / sizeof(*sp);
    for (u32 *place = stack; place < sp; place++) {
        *place = STACK_UNUSED;
    }
    *--sp = (u32)task_first;
    *--sp = (u32)entry; /* EBX */
    *--sp = (u32)argument; /* ESI */
    *--sp = 0; /* EDI */
    *--sp = 0; /* EBP */
    task->sp = (u32)sp;
}

struct task *task_create(const char *name, u8 priority, task_entry entry, void *argument) {
    struct task *task = priority < PRIORITIES ? take_slot() : NULL;
    if (!task) {
        return NULL;
    }
    task->priority = task->base_priority = priority;
    copy_name(task, name);
    prepare(task, entry, argument);
    u32 flags = interrupts_off();
    task->suspended = false;
    make_ready(task);
    if (current) {
        schedule();
    }
    interrupts_restore(flags);
    return task;
}

u32 task_stack_used(const struct task *task) {
    const u32 *stack = (const u32 *)task->stack;
    u32 untouched = 0;
    while (untouched < STACK_BYTES / sizeof(*stack) && stack[untouched] == STACK_UNUSED) {
        untouched++;
    }
    return STACK_BYTES - untouched * sizeof(*stack);
}

/* What it owns goes to those that wait for it. */
void task_delete(struct task *task) {
    u32 flags = interrupts_off();
    struct mutex *mutex = task->waits_for;
    leave(task);
    watchdog_cancel(&task->timeout);
    task->state = FREE;
    fpu_forget(task);
    mutexes_release(task);
    if (mutex) {
        inherit(mutex->owner);
    }
    schedule();
    interrupts_restore(flags);
}

void task_exit(void) {
    task_delete(current);
    __builtin_unreachable();
}

/* Into a wait list, behind those of its priority. */
static void insert(struct node *list, struct task *task) {
    struct node *before = list->next;
    while (before != list && ((struct task *)before)->priority <= task->priority) {
        before = before->next;
    }
    list_append(before, &task->link);
}

/* The current task leaves the ready list for `list` (by priority), or for none: that is a delay. It runs on until
 * wait_end(). */
void wait_begin(struct node *list, u32 timeout) {
    struct task *self = current;
    leave(self);
    self->timed_out = false;
    self->wait_list = list;
    self->state = list ? PENDING : DELAYED;
    if (list) {
        insert(list, self);
    }
    if (timeout != FOREVER) {
        watchdog_start(&self->timeout, timeout, expire_wait, self);
    }
}

/* True unless it timed out. */
bool wait_end(void) {
    struct task *self = current;
    schedule();
    return !self->timed_out;
}

bool wait_in(struct node *list, u32 timeout) {
    wait_begin(list, timeout);
    return wait_end();
}

/* Takes the highest waiter off the list and makes it ready; NULL if there is none. */
struct task *first_waiter(struct node *list) {
    if (list_empty(list)) {
        return NULL;
    }
    struct task *task = (struct task *)list->next;
    list_remove(&task->link);
    task->wait_list = NULL;
    watchdog_cancel(&task->timeout);
    make_ready(task);
    return task;
}

void task_delay(u32 delay) {
    u32 flags = interrupts_off();
    if (delay) {
        wait_in(NULL, delay < DELAY_MAX ? delay : DELAY_MAX);
    } else {
        leave(current);
        make_ready(current);
        schedule();
    }
    interrupts_restore(flags);
}

void task_yield(void) {
    task_delay(0);
}

/* A task that waits goes on waiting, but does not run when that is over. */
void task_suspend(struct task *task) {
    u32 flags = interrupts_off();
    task->suspended = true;
    if (task->state == READY) {
        leave(task);
        schedule();
    }
    interrupts_restore(flags);
}

void task_resume(struct task *task) {
    u32 flags = interrupts_off();
    if (task->suspended) {
        task->suspended = false;
        if (task->state == READY) {
            make_ready(task);
            reschedule(flags);
        }
    }
    interrupts_restore(flags);
}

/* A ready or waiting task moves to the place of its new priority. A ready one that falls goes before its equals
 * there: it was its turn. */
void change_priority(struct task *task, u8 priority) {
    bool falls = priority > task->priority;
    if (task->state == READY && !task->suspended) {
        leave(task);
        task->priority = priority;
        enter(task, falls ? ready[priority].next : &ready[priority]);
    } else if (task->wait_list) {
        list_remove(&task->link);
        task->priority = priority;
        insert(task->wait_list, task);
    } else {
        task->priority = priority;
    }
}

bool task_set_priority(struct task *task, u8 priority) {
    if (priority >= PRIORITIES) {
        return false;
    }
    u32 flags = interrupts_off();
    task->base_priority = priority;
    inherit(task);
    schedule();
    interrupts_restore(flags);
    return true;
}

static void halt(void *argument) {
    (void)argument;
    for (;;) {
        asm volatile("sti; hlt" : : : "memory");
    }
}

void scheduler_init(void) {
    for (u32 priority = 0; priority < PRIORITIES; priority++) {
        list_init(&ready[priority]);
    }
    idle.stack = idle_stack;
    copy_name(&idle, "idle");
    prepare(&idle, halt, NULL);
}

void scheduler_start(void) {
    u32 abandoned;
    current = highest();
    current->switches++;
    started = switched = rdtsc();
    fpu_switched();
    switch_stack(&abandoned, current->sp);
    __builtin_unreachable();
}
