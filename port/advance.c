// Timer advance: a halted guest of priority above 0 is woken before its deadline.
//
// The way from the scheduler to the entry takes some thousand ticks. The guest is woken that much
// before its timer is due (frame->lead, which vmx.earliest() subtracts), and the entry waits for
// the deadline: no interrupt is early. The lead adapts: a late entry lengthens it by a quarter of
// the lateness, at most by 500 ticks; an early one shortens it by a 128th of its wait. It is at
// most 10,000 ticks, and a quarter of the time between two deadlines, so that guests of lower
// priority get the rest.
#include "port/advance.h"
#include "port/vmxops.h"

#define LATE_MOST (2000) // host TSC ticks: lateness of one entry is cut to this
#define LATE_PART (4)
#define WAIT_PART (128)
#define LEAD_MOST (10000) // host TSC ticks
#define LEAD_PART (4) // of the time since the deadline before

static uint64_t least(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static void wait_until(uint64_t deadline) {
    while ((int64_t)(op_rdtsc() - deadline) < 0) {
        __asm volatile("pause");
    }
}

void advance_meet(vcpu_frame_t *f) {
    int64_t late = op_rdtsc() - f->due;
    uint64_t most = least((f->due - f->last_due) / LEAD_PART, LEAD_MOST);
    f->timed++;
    f->last_due = f->due;
    if (late > 0) {
        f->late += late;
        f->latest = (uint64_t)late > f->latest ? (uint64_t)late : f->latest;
    }
    if (f->priority == 0) {
        f->lead = 0;
    } else if (late > 0) {
        f->lead += least(late, LATE_MOST) / LATE_PART;
    } else {
        f->lead -= least(-late / WAIT_PART, f->lead);
        wait_until(f->due);
    }
    f->lead = least(f->lead, most);
    f->due = 0;
}
