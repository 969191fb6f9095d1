// Work-arounds for Bochs 2.7, in use only where a trial has shown that they are needed:
// vmm/vtx/trial.py runs a guest of a few bytes and says what it saw by vmx.flaws(bits), FLAW_... of shared_constants.h.
#ifndef PCANEL_BOCHS27_H
#define PCANEL_BOCHS27_H

#include "port/vcpu.h"

// Before an entry, interrupts off: the host's interrupts wait where one of the guest's could be
// delivered in their place. Returns whether they wait; bochs27_release() ends that after the exit.
bool bochs27_hold(const vcpu_frame_t *frame);
void bochs27_release(void);

// The preemption timer's value, of `left`, for an entry that no host interrupt ends, since they wait (held) or the
// guest has interrupts off.
uint64_t bochs27_limit(const vcpu_frame_t *frame, bool held, uint64_t left);
#endif
