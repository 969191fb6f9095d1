// The watchdog of Python code (watch.c), for the rest of the port.
#ifndef PCANEL_PORT_WATCH_H
#define PCANEL_PORT_WATCH_H

#include <stdint.h>
#include "py/obj.h"

extern const mp_obj_type_t mp_type_Timeout;

// Prepares what the interrupt needs to raise Timeout; once per heap.
void watch_init(void);

// The deadline has passed. Called from the interrupt.
void watch_expired(void);

// The watchdog of code that preempt() interrupts: its time stands still meanwhile.
typedef struct {
    uint64_t deadline, since; // TSC
    unsigned shots;
} watch_t;
watch_t watch_suspend(void);
void watch_resume(watch_t watch);

#endif
