/* Mutexes with priority inheritance. */
#include "kernel.h"

#define OWNED(node) ((struct mutex *)((u8 *)(node)-offsetof(struct mutex, owned)))

void mutex_init(struct mutex *mutex) {
    list_init(&mutex->waiters);
    list_init(&mutex->owned);
    mutex->owner = NULL;
    mutex->depth = 0;
}

/* A task's priority: its own, or that of the highest waiter for any mutex that it owns. */
static u8 inherited(const struct task *task) {
    u8 priority = task->base_priority;
    for (struct node *node = task->mutexes.next; node != &task->mutexes; node = node->next) {
        struct mutex *mutex = OWNED(node);
        if (!list_empty(&mutex->waiters)) {
            u8 waiter = ((struct task *)mutex->waiters.next)->priority;
            priority = waiter < priority ? waiter : priority;
        }
    }
    return priority;
}

/* The task's own priority has changed, or the set of tasks that wait for what it owns. Follows the chain of owners that wait for
 * other mutexes. */
void inherit(struct task *task) {
    while (task) {
        u8 priority = inherited(task);
        if (priority == task->priority) {
            return;
        }
        change_priority(task, priority);
        task = task->waits_for ? task->waits_for->owner : NULL;
    }
}

static void own(struct mutex *mutex, struct task *task) {
    mutex->owner = task;
    mutex->depth = 1;
    list_append(&task->mutexes, &mutex->owned);
}

/* The first that waits has it from now on, before it runs. */
static void hand_over(struct mutex *mutex) {
    list_remove(&mutex->owned);
    mutex->owner = NULL;
    struct task *next = first_waiter(&mutex->waiters);
    if (next) {
        next->waits_for = NULL;
        own(mutex, next);
    }
}

bool mutex_lock(struct mutex *mutex, u32 timeout) {
    u32 flags = interrupts_off();
    struct task *self = task_self();
    bool locked = true;
    if (!mutex->owner) {
        own(mutex, self);
    } else if (mutex->owner == self) {
        mutex->depth++;
    } else if (!timeout) {
        locked = false;
    } else {
        self->waits_for = mutex;
        wait_begin(&mutex->waiters, timeout);
        inherit(mutex->owner);
        locked = wait_end();
    }
    interrupts_restore(flags);
    return locked;
}

void mutex_unlock(struct mutex *mutex) {
    u32 flags = interrupts_off();
    struct task *self = task_self();
    if (mutex->owner == self && --mutex->depth == 0) {
        hand_over(mutex);
        inherit(self);
        schedule();
    }
    interrupts_restore(flags);
}

/* All that the task owns is handed over. */
void mutexes_release(struct task *task) {
    while (!list_empty(&task->mutexes)) {
        hand_over(OWNED(task->mutexes.next));
    }
}
