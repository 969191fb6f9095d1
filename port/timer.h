// Time: the TSC, its frequency, and one-shot deadlines on it.
#ifndef PCANEL_PORT_TIMER_H
#define PCANEL_PORT_TIMER_H

#include <stdint.h>

// Independent deadlines that share the local APIC timer.
typedef enum {
    TIMER_WAIT, // the current wait of the prompt or of a sleep
    TIMER_WATCH, // cpu.watch()
    TIMER_STUCK, // the idle hook does not return after Ctrl-C at the prompt
    TIMER_RETRY, // second try at a pending exception (trap.c)
    TIMER_CORE, // timer_arm()
    TIMER_DRIVER, // cpu.look_at()
    TIMER_COUNT
} timer_slot_t;

extern uint64_t tsc_hz;

void timer_init(void);

// Sets a slot's deadline in TSC ticks; 0 disarms it.
void timer_set(timer_slot_t slot, uint64_t tsc);

// A slot's deadline, 0 where it is disarmed.
uint64_t timer_get(timer_slot_t slot);

// Arms the monitor's one-shot deadline: its only effect is the interrupt.
void timer_arm(uint64_t tsc);

uint64_t timer_us(uint64_t us); // microseconds to TSC ticks

// A slot's deadline has passed; called from the interrupt (modcpu.c).
void timer_expired(timer_slot_t slot);

#endif
