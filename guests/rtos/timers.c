/* The tick, watchdogs and time-outs: one list in the order of expiry. */
#include "kernel.h"

volatile u32 ticks;

static struct node timers = {&timers, &timers};

static bool before(u32 a, u32 b) {
    return (int32_t)(a - b) < 0; /* ticks wrap */
}

void watchdog_cancel(struct timer *watchdog) {
    u32 flags = interrupts_off();
    if (watchdog->armed) {
        list_remove(&watchdog->link);
        watchdog->armed = false;
    }
    interrupts_restore(flags);
}

void watchdog_start(struct timer *watchdog, u32 delay, void (*expire)(void *), void *argument) {
    u32 flags = interrupts_off();
    watchdog_cancel(watchdog);
    watchdog->expire = expire;
    watchdog->argument = argument;
    delay = delay ? delay : 1;
    watchdog->expiry = ticks + (delay < DELAY_MAX ? delay : DELAY_MAX);
    watchdog->armed = true;
    struct node *place = timers.next;
    while (place != &timers && !before(watchdog->expiry, ((struct timer *)place)->expiry)) {
        place = place->next;
    }
    list_append(place, &watchdog->link);
    interrupts_restore(flags);
}

void timers_tick(void) {
    ticks++;
    while (timers.next != &timers) {
        struct timer *first = (struct timer *)timers.next;
        if (before(ticks, first->expiry)) {
            break;
        }
        list_remove(&first->link);
        first->armed = false;
        first->expire(first->argument);
    }
}
