// Garbage collection that a guest of higher priority can preempt.
//
// Included by mpconfigport.h, so nothing of MicroPython is known here.
#ifndef PCANEL_PORT_COLLECT_H
#define PCANEL_PORT_COLLECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "port/preempt.h"

extern bool collect_yields; // a collection that can be preempted is running

typedef struct {
    uint64_t count, yields; // collections; how often guests ran in the middle of one
    uint64_t latest; // longest wait of a guest that was due, in TSC ticks
} collect_statistics_t;

extern collect_statistics_t collect_statistics;

// Runs the scheduler in the middle of a collection. at: the block that the collector's loop has reached.
void collect_yield(size_t at);

static inline void collect_look(size_t at) {
    if (__builtin_expect(collect_yields, 0) && (at & 15) == 0 && preempt_due()) {
        collect_yield(at);
    }
}

#endif
