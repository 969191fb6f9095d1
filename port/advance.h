// Timer advance (advance.c).
#ifndef PCANEL_ADVANCE_H
#define PCANEL_ADVANCE_H

#include "port/vcpu.h"

// Before the entry that serves a deadline of a halted guest (frame->due): counts the lateness. A guest of priority
// above 0 waits here for the deadline.
void advance_meet(vcpu_frame_t *frame);
#endif
