/* The kernel's interface: tasks, semaphores, mutexes, message queues, watchdogs.
 *
 * 32 priorities, 0 the highest; the highest ready task runs, equals in turn when one yields or blocks. What says
 * "ISR" may be called from interrupt handlers. Time-outs are in ticks, DELAY_MAX at most; FOREVER waits without
 * end, 0 not at all. There is no paging and no protection: a task is trusted.
 */
#ifndef RTOS_KERNEL_H
#define RTOS_KERNEL_H

#include "cpu.h"

#define PRIORITIES      32
#define PRIORITY_LOWEST (PRIORITIES - 1)
#define TASKS           24
#define STACK_BYTES     8192
#define NAME_BYTES      12
#define FOREVER         0xffffffffu
#define DELAY_MAX       0x7fffffffu /* ticks wrap */
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct node {
    struct node *next, *previous;
};

enum state { FREE, READY, DELAYED, PENDING };

/* A time in the future: a watchdog, or the time-out of a task that waits. */
struct timer {
    struct node link; /* in the order of expiry */
    u32 expiry;
    bool armed;
    void (*expire)(void *argument);
    void *argument;
};

struct mutex;

struct task {
    struct node link; /* in the ready list of its priority, or in a wait list */
    u32 sp;
    enum state state;
    bool suspended; /* beside its state: does not run */
    u8 priority, base_priority;
    bool timed_out;
    char name[NAME_BYTES];
    struct node *wait_list; /* PENDING: the list it is in */
    struct mutex *waits_for; /* and the mutex, if it is one */
    void *message; /* or where its message is, if it is a queue's */
    struct node mutexes; /* that it owns */
    struct timer timeout;
    u64 used; /* TSC ticks that it has run */
    u32 switches;
    u8 *stack;
    u8 fpu[512] __attribute__((aligned(16)));
    bool fpu_used;
};

typedef void (*task_entry)(void *argument);

/* NULL if there is no slot, or no such priority. */
struct task *task_create(const char *name, u8 priority, task_entry entry, void *argument);
void task_exit(void) __attribute__((noreturn));
void task_delete(struct task *task);
void task_delay(u32 ticks);
void task_yield(void);
bool task_set_priority(struct task *task, u8 priority); /* false: there is no such priority */
void task_suspend(struct task *task);
void task_resume(struct task *task); /* ISR */
struct task *task_self(void);
u32 task_stack_used(const struct task *task);
struct task *task_number(u32 number); /* NULL for a free slot */

/* Semaphores count; a binary one has limit 1. Waiters are served by priority. */
struct semaphore {
    struct node waiters;
    u32 count, limit;
};

void semaphore_init(struct semaphore *semaphore, u32 count, u32 limit);
bool semaphore_take(struct semaphore *semaphore, u32 timeout);
void semaphore_give(struct semaphore *semaphore); /* ISR */
void semaphore_flush(struct semaphore *semaphore); /* all that wait have it; ISR */

/* A mutex has an owner, may be locked by it again, and lends it the priority of its highest waiter. */
struct mutex {
    struct node waiters;
    struct node owned; /* in the owner's list */
    struct task *owner;
    u32 depth;
};

void mutex_init(struct mutex *mutex);
bool mutex_lock(struct mutex *mutex, u32 timeout);
void mutex_unlock(struct mutex *mutex);

/* Messages of a fixed size, first in, first out. */
struct queue {
    u8 *storage;
    u32 size, capacity, head, used; /* places in the ring */
    struct node senders, receivers; /* that wait */
};

void queue_init(struct queue *queue, void *storage, u32 size, u32 capacity);
bool queue_send(struct queue *queue, const void *message, u32 timeout); /* ISR with time-out 0 */
bool queue_receive(struct queue *queue, void *message, u32 timeout);

/* A watchdog calls a function from the tick's interrupt, once; in 0 ticks is at the next, as in 1. */
void watchdog_start(
    struct timer *watchdog, u32 ticks, void (*expire)(void *), void *argument); /* ISR */
void watchdog_cancel(struct timer *watchdog); /* ISR */

/* The scheduler's own, for the other parts of the kernel. Interrupts are off. */
void scheduler_init(void);
void scheduler_start(void) __attribute__((noreturn));
void schedule(void);
void reschedule(u32 flags);
void make_ready(struct task *task);
void wait_begin(struct node *list, u32 timeout);
bool wait_end(void);
bool wait_in(struct node *list, u32 timeout);
struct task *first_waiter(struct node *list);
void change_priority(struct task *task, u8 priority);
void inherit(struct task *task);
void mutexes_release(struct task *task);
void timers_tick(void);
extern volatile u32 ticks;

void charge_interrupt(u64 spent);

/* Times since the start in TSC ticks, of one moment: in total, and of each task. */
struct times {
    u64 whole, idle, interrupts, tasks[TASKS];
};

void kernel_times(struct times *times);

/* Lists. */
void list_init(struct node *list);
bool list_empty(const struct node *list);
void list_append(struct node *list, struct node *node);
void list_remove(struct node *node);

/* Vectors. */
#define VECTOR_IRQ 0x20
typedef void (*irq_handler)(u64 entered);
void irq_connect(u32 irq, irq_handler handler);
bool in_interrupt(void);
void interrupts_init(void);

void fpu_init(void);
bool fpu_load(void);
void fpu_switched(void);
void fpu_forget(struct task *task);

#endif
