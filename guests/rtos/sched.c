/* Tasks and the scheduler. */
#include "kernel.h"
#include "print.h"

#define STACK_UNUSED 0xeeeeeeeeu

static struct task tasks[TASKS];
static u8 stacks[TASKS][STACK_BYTES] __attribute__((aligned(16)));
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

u64 kernel_time(void) {
    return rdtsc() - started;
}

void make_ready(struct task *task) {
    task->state = READY;
    list_append(&ready[task->priority], &task->link);
    ready_bitmap |= 1u << task->priority;
}

static void unready(struct task *task) {
    list_remove(&task->link);
    if (list_empty(&ready[task->priority])) {
        ready_bitmap &= ~(1u << task->priority);
    }
}

/* Runs the highest ready task; interrupts are off. The idle task is always ready. */
void schedule(void) {
    struct task *next = (struct task *)ready[__builtin_ctz(ready_bitmap)].next;
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

/* Somebody has become ready. `flags` are the caller's: where it had interrupts off, or is a handler, the switch comes
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

u64 interrupt_time(void) {
    return interrupts_used;
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
    list_remove(&task->link);
    task->wait_list = NULL;
    task->timed_out = true;
    make_ready(task);
}

/* A free slot, taken; NULL if there is none. */
static struct task *take_slot(void) {
    u32 flags = interrupts_off();
    struct task *task = NULL;
    for (u32 slot = 0; slot < TASKS && !task; slot++) {
        if (tasks[slot].state == FREE && &tasks[slot] != current) {
            task = &tasks[slot];
            task->state = SUSPENDED;
            task->stack = stacks[slot];
        }
    }
    interrupts_restore(flags);
    return task;
}

struct task *task_create(const char *name, u8 priority, task_entry entry, void *argument) {
    struct task *task = take_slot();
    if (!task) {
        return NULL;
    }
    *task = (struct task){.stack = task->stack, .state = SUSPENDED};
    task->priority = task->base_priority = priority;
    copy_name(task, name);
    list_init(&task->link);
    list_init(&task->mutexes);
    task->timeout.expire = expire_wait;
    task->timeout.argument = task;
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
    u32 flags = interrupts_off();
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

void task_delete(struct task *task) {
    u32 flags = interrupts_off();
    if (task->state == READY) {
        unready(task);
    } else {
        list_remove(&task->link);
        watchdog_cancel(&task->timeout);
    }
    task->state = FREE;
    fpu_forget(task);
    if (task == current) {
        schedule();
    }
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

/* The current task leaves the ready list for `list` (by priority) or for none; true unless it timed out. */
bool wait_in(struct node *list, u32 timeout) {
    struct task *self = current;
    unready(self);
    self->timed_out = false;
    self->wait_list = list;
    if (list) {
        insert(list, self);
        self->state = PENDING;
    } else {
        list_init(&self->link);
        self->state = timeout == FOREVER ? SUSPENDED : DELAYED;
    }
    if (timeout != FOREVER) {
        watchdog_start(&self->timeout, timeout, expire_wait, self);
    }
    schedule();
    return !self->timed_out;
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
        wait_in(NULL, delay);
    } else {
        unready(current);
        make_ready(current);
        schedule();
    }
    interrupts_restore(flags);
}

void task_yield(void) {
    task_delay(0);
}

void task_suspend(struct task *task) {
    u32 flags = interrupts_off();
    if (task == current) {
        wait_in(NULL, FOREVER);
    } else if (task->state == READY) {
        unready(task);
        list_init(&task->link);
        task->state = SUSPENDED;
    }
    interrupts_restore(flags);
}

void task_resume(struct task *task) {
    u32 flags = interrupts_off();
    if (task->state == SUSPENDED) {
        make_ready(task);
        reschedule(flags);
    }
    interrupts_restore(flags);
}

/* A ready or waiting task moves to the place of its new priority. */
void change_priority(struct task *task, u8 priority) {
    if (task->priority == priority) {
        return;
    }
    if (task->state == READY) {
        unready(task);
        task->priority = priority;
        make_ready(task);
    } else if (task->wait_list) {
        list_remove(&task->link);
        task->priority = priority;
        insert(task->wait_list, task);
    } else {
        task->priority = priority;
    }
}

void task_set_priority(struct task *task, u8 priority) {
    u32 flags = interrupts_off();
    task->base_priority = priority;
    change_priority(task, priority);
    schedule();
    interrupts_restore(flags);
}

static void idle(void *argument) {
    (void)argument;
    for (;;) {
        asm volatile("sti; hlt" : : : "memory");
    }
}

void scheduler_init(void) {
    for (u32 priority = 0; priority < PRIORITIES; priority++) {
        list_init(&ready[priority]);
    }
    task_create("tIdle", IDLE_PRIORITY, idle, NULL);
}

void scheduler_start(void) {
    u32 abandoned;
    current = (struct task *)ready[__builtin_ctz(ready_bitmap)].next;
    current->switches++;
    started = switched = rdtsc();
    fpu_switched();
    switch_stack(&abandoned, current->sp);
    __builtin_unreachable();
}
