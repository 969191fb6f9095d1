// Work-arounds for Bochs 2.7, in use only where a trial has shown that they are needed: vmm/vtx/trial.py runs a guest
// of a few bytes and reports the flaws that it found by vmx.flaws(bits), FLAW_... of shared_constants.h.
#ifndef PCANEL_BOCHS27_H
#define PCANEL_BOCHS27_H

#include "port/vcpu.h"

// Before an entry, interrupts off: holds host interrupts off where a virtual interrupt could be
// delivered in their place. Returns whether it does; bochs27_release() ends that after the exit.
bool bochs27_hold(const vcpu_frame_t *frame);
void bochs27_release(void);

// The preemption timer's value, at most `left`: less for an entry that no host interrupt ends, since they are held off
// (held) or the guest has interrupts off.
uint64_t bochs27_limit(const vcpu_frame_t *frame, bool held, uint64_t left);
#endif
