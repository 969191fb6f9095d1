/* Semaphores and message queues. */
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

void semaphore_flush(struct semaphore *semaphore) {
    u32 flags = interrupts_off();
    while (first_waiter(&semaphore->waiters)) {
    }
    reschedule(flags);
    interrupts_restore(flags);
}

void queue_init(struct queue *queue, void *storage, u32 size, u32 capacity) {
    queue->storage = storage;
    queue->size = size;
    queue->capacity = capacity;
    queue->head = queue->used = 0;
    list_init(&queue->senders);
    list_init(&queue->receivers);
}

static void copy(u8 *to, const u8 *from, u32 bytes) {
    while (bytes--) {
        *to++ = *from++;
    }
}

static void put(struct queue *queue, const void *message) {
    u32 tail = (queue->head + queue->used++) % queue->capacity;
    copy(queue->storage + tail * queue->size, message, queue->size);
}

static void get(struct queue *queue, void *message) {
    copy(message, queue->storage + queue->head * queue->size, queue->size);
    queue->head = (queue->head + 1) % queue->capacity;
    queue->used--;
}

/* Whoever ends another task's wait does its part too: a task that is deleted before it runs again leaves nothing half
 * done. */
bool queue_send(struct queue *queue, const void *message, u32 timeout) {
    u32 flags = interrupts_off();
    bool sent = true;
    struct task *receiver = first_waiter(&queue->receivers);
    if (receiver) {
        copy(receiver->message, message, queue->size);
        reschedule(flags);
    } else if (queue->used < queue->capacity) {
        put(queue, message);
    } else if (timeout) {
        task_self()->message = (void *)message;
        sent = wait_in(&queue->senders, timeout);
    } else {
        sent = false;
    }
    interrupts_restore(flags);
    return sent;
}

bool queue_receive(struct queue *queue, void *message, u32 timeout) {
    u32 flags = interrupts_off();
    bool received = true;
    if (queue->used) {
        get(queue, message);
        struct task *sender = first_waiter(&queue->senders);
        if (sender) {
            put(queue, sender->message);
            reschedule(flags);
        }
    } else if (timeout) {
        task_self()->message = message;
        received = wait_in(&queue->receivers, timeout);
    } else {
        received = false;
    }
    interrupts_restore(flags);
    return received;
}
