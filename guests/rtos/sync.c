/* Semaphores, mutexes with priority inheritance, message queues. */
#include "kernel.h"

void semaphore_init(struct semaphore *semaphore, u32 count, u32 limit) {
    list_init(&semaphore->waiters);
    semaphore->count = count;
    semaphore->limit = limit;
}

bool semaphore_take(struct semaphore *semaphore, u32 timeout) {
    u32 flags = interrupts_off();
    bool taken = true;
    if (semaphore->count) {
        semaphore->count--;
    } else {
        taken = timeout && wait_in(&semaphore->waiters, timeout);
    }
    interrupts_restore(flags);
    return taken;
}

/* From a task it switches at once to a higher waiter; from an interrupt the switch comes at its end. */
void semaphore_give(struct semaphore *semaphore) {
    u32 flags = interrupts_off();
    if (first_waiter(&semaphore->waiters)) {
        reschedule(flags);
    } else if (semaphore->count < semaphore->limit) {
        semaphore->count++;
    }
    interrupts_restore(flags);
}

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

/* Follows the chain of owners that wait for other mutexes. */
static void propagate(struct mutex *mutex) {
    while (mutex && mutex->owner) {
        struct task *owner = mutex->owner;
        u8 priority = inherited(owner);
        if (priority == owner->priority) {
            return;
        }
        change_priority(owner, priority);
        mutex = owner->waits_for;
    }
}

static void own(struct mutex *mutex, struct task *task) {
    mutex->owner = task;
    mutex->depth = 1;
    list_append(&task->mutexes, &mutex->owned);
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
        if (self->priority < mutex->owner->priority) {
            change_priority(mutex->owner, self->priority);
            propagate(mutex->owner->waits_for);
        }
        locked = wait_in(&mutex->waiters, timeout); /* unlocking made us the owner */
        self->waits_for = NULL;
        if (!locked) {
            propagate(mutex);
        }
    }
    interrupts_restore(flags);
    return locked;
}

void mutex_unlock(struct mutex *mutex) {
    u32 flags = interrupts_off();
    struct task *self = task_self();
    if (mutex->owner == self && --mutex->depth == 0) {
        list_remove(&mutex->owned);
        mutex->owner = NULL;
        struct task *next = first_waiter(&mutex->waiters);
        if (next) {
            own(mutex, next);
            change_priority(next, inherited(next));
        }
        change_priority(self, inherited(self));
        schedule();
    }
    interrupts_restore(flags);
}

void queue_init(struct queue *queue, void *storage, u32 size, u32 capacity) {
    queue->storage = storage;
    queue->size = size;
    queue->capacity = capacity;
    queue->head = queue->tail = 0;
    semaphore_init(&queue->used, 0, capacity);
    semaphore_init(&queue->room, capacity, capacity);
}

static void copy(u8 *to, const u8 *from, u32 bytes) {
    while (bytes--) {
        *to++ = *from++;
    }
}

bool queue_send(struct queue *queue, const void *message, u32 timeout) {
    if (!semaphore_take(&queue->room, timeout)) {
        return false;
    }
    u32 flags = interrupts_off();
    copy(queue->storage + queue->tail * queue->size, message, queue->size);
    queue->tail = (queue->tail + 1) % queue->capacity;
    interrupts_restore(flags);
    semaphore_give(&queue->used);
    return true;
}

bool queue_receive(struct queue *queue, void *message, u32 timeout) {
    if (!semaphore_take(&queue->used, timeout)) {
        return false;
    }
    u32 flags = interrupts_off();
    copy(message, queue->storage + queue->head * queue->size, queue->size);
    queue->head = (queue->head + 1) % queue->capacity;
    interrupts_restore(flags);
    semaphore_give(&queue->room);
    return true;
}
