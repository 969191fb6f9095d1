// Host interrupts are coalesced: between two of them for which guests make way, guests run for a while.
//
// Characters that are typed come faster than the monitor services a console. Without this the
// guest would not be entered until all have come.
#ifndef PCANEL_COALESCE_H
#define PCANEL_COALESCE_H

#include "port/trap.h"
#include "port/vcpu.h"

#define COALESCE_TICKS (10000) // host TSC ticks of guests
#define COALESCE_EXIT  (1000) // what an exit counts for: a guest may exit at every instruction

// Interrupts off. Whether what interrupts have brought is to be seen to before the entry that
// would come now. keeps: not before this one, since a deadline does not wait for that.
static inline bool coalesce_due(bool keeps) {
    if (__builtin_expect(!host_attention || vmx_cpu.holdoff != 0, 1)) {
        return false;
    }
    vmx_cpu.holdoff = COALESCE_TICKS;
    if (keeps) {
        return false;
    }
    host_attention = 0;
    return true;
}

// How long the guest may run, of `left` ticks: not longer than an interrupt may wait.
static inline uint64_t coalesce_limit(uint64_t left, unsigned shift) {
    if (__builtin_expect(vmx_cpu.holdoff != 0, 0) && host_attention) {
        uint64_t most = vmx_cpu.holdoff >> shift;
        return most < left ? most : left;
    }
    return left;
}

// So many ticks of `rest` are over.
static inline uint64_t coalesce_less(uint64_t rest, uint64_t ran) {
    return rest > ran + COALESCE_EXIT ? rest - ran - COALESCE_EXIT : 0;
}
#endif
