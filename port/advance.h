// Timer advance (advance.c).
#ifndef PCANEL_ADVANCE_H
#define PCANEL_ADVANCE_H

#include "port/vcpu.h"

// The entry for a deadline of a guest that was halted (frame->due): its lateness is counted, and one of priority above
// 0 waits here until the deadline.
void advance_meet(vcpu_frame_t *frame);
#endif
