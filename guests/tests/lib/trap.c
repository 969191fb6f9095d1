/* Where every trap and interrupt of the harness arrives. */
#include "descriptors.h"
#include "report.h"
#include "test.h"

volatile struct trap trap;
volatile word trap_resume;
void (*trap_from_user)(void);

static trap_hook hooks[VECTORS];

void set_hook(u32 vector, trap_hook hook) {
    hooks[vector] = hook;
}

void trap_clear(void) {
    trap = (struct trap){.vector = NONE};
}

#if REAL16
extern const u16 trap_stubs[VECTORS];

void traps_init(void) {
    for (u32 vector = 0; vector < VECTORS; vector++) {
        ((volatile u32 *)0)[vector] = trap_stubs[vector];
    }
}
#endif

static void record(const struct frame *frame) {
    trap.vector = frame->vector;
    trap.ip = frame->ip;
    trap.flags = frame->flags;
    trap.cr2 = read_cr2();
    trap.count++;
#if REAL16
    trap.sp = (word)frame + sizeof(*frame);
#else
    trap.error = frame->error;
#if LONG64
    trap.sp = frame->sp;
#else
    trap.sp = frame->cs & 3 ? frame->user_sp : (word)&frame->user_sp;
#endif
#endif
}

void trap_entry(struct frame *frame) {
    if (hooks[frame->vector] && hooks[frame->vector](frame)) {
        return;
    }
    record(frame);
#if PAGED
    if (frame->cs & 3 && trap_from_user) {
        trap_from_user();
    }
#endif
    if (!trap_resume) {
        lost("unexpected trap", trap.vector, trap.error, trap.ip);
    }
    frame->ip = trap_resume;
    frame->flags &= ~(FLAGS_TF | FLAGS_NT | FLAGS_AC);
    trap_resume = 0;
}
