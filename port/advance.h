// Timer advance (advance.c).
#ifndef PCANEL_ADVANCE_H
#define PCANEL_ADVANCE_H

#include "port/vcpu.h"

// Before the entry for a deadline of a guest that was halted (frame->due): counts the lateness; an entry of a guest of
// priority above 0 waits here for the deadline.
void advance_meet(vcpu_frame_t *frame);
#endif
