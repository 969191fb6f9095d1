// Preemption of bytecode (a handler, or a line at the prompt) by a guest of higher priority.
//
// The scheduler sets the TSC from which on (preempt_at); the interpreter's loop tests it at each
// branch. Included by mpconfigport.h, so nothing of MicroPython is known here.
#ifndef PCANEL_PORT_PREEMPT_H
#define PCANEL_PORT_PREEMPT_H

#include <stdbool.h>
#include <stdint.h>

extern uint64_t preempt_at; // host TSC, 0 = never
extern unsigned preempt_holds; // not 0: disabled

// Calls the function that cpu.preempt() was given. Raises nothing.
void preempt(void);

static inline bool preempt_due(void) {
    if (__builtin_expect(preempt_at == 0, 1) || preempt_holds != 0) {
        return false;
    }
    uint32_t low, high;
    __asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return ((uint64_t)high << 32 | low) >= preempt_at;
}

static inline void preempt_look(void) {
    if (preempt_due()) {
        preempt();
    }
}

#endif
