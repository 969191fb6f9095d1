// Coalescing of host interrupts: after one has ended a guest's run, guests run for a while before the next does.
//
// Typed characters arrive faster than the monitor services a console. Without coalescing the
// guest would not be entered until all have arrived.
#ifndef PCANEL_COALESCE_H
#define PCANEL_COALESCE_H

#include "port/trap.h"
#include "port/vcpu.h"

#define COALESCE_TICKS (10000) // host TSC ticks of guests
#define COALESCE_EXIT  (1000) // charged for an exit: a guest may exit at every instruction

// Whether host interrupts, of which one waits, are serviced before this guest is entered. A guest of priority above 0
// whose deadline has just come, or that gets an interrupt, is entered first, so that it executes the first instructions
// of its handler: a few times between two services, so that no guest keeps them waiting.
bool coalesce_service(const vcpu_frame_t *frame);

MP_DECLARE_CONST_FUN_OBJ_2(coalesce_waits_obj);

// Interrupts off. Whether the monitor has to service host interrupts before the next entry.
static inline bool coalesce_due(const vcpu_frame_t *frame) {
    if (__builtin_expect(!host_attention || vmx_cpu.holdoff != 0, 1)) {
        return false;
    }
    return coalesce_service(frame);
}

// `left` ticks of the guest's run, cut to the time that an interrupt may wait.
static inline uint64_t coalesce_limit(uint64_t left, unsigned shift) {
    if (__builtin_expect(vmx_cpu.holdoff != 0, 0) && host_attention) {
        uint64_t most = vmx_cpu.holdoff >> shift;
        return most < left ? most : left;
    }
    return left;
}

// `rest` less the ticks that the guest ran.
static inline uint64_t coalesce_less(uint64_t rest, uint64_t ran) {
    return rest > ran + COALESCE_EXIT ? rest - ran - COALESCE_EXIT : 0;
}
#endif
