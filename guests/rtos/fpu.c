/* FPU and SSE state of each task, saved only when another task uses the unit: CR0.TS and #NM. */
#include "kernel.h"

static struct task *owner; /* whose state is in the unit */

void fpu_init(void) {
    u32 cr4;
    asm volatile("movl %%cr4, %0" : "=r"(cr4));
    asm volatile("movl %0, %%cr4" : : "r"(cr4 | CR4_OSFXSR));
    write_cr0((read_cr0() | CR0_MP | CR0_NE | CR0_TS) & ~CR0_EM);
}

/* At a switch: the next task may go on with the unit only if its own state is in it. */
void fpu_switched(void) {
    bool usable = owner == task_self();
    u32 cr0 = read_cr0();
    if (!usable && !(cr0 & CR0_TS)) {
        write_cr0(cr0 | CR0_TS);
    } else if (usable && cr0 & CR0_TS) {
        asm volatile("clts");
    }
}

/* #NM: true if it was ours. */
bool fpu_load(void) {
    static const u32 mxcsr = 0x1f80;
    struct task *self = task_self();
    if (!(read_cr0() & CR0_TS) || !self) {
        return false;
    }
    asm volatile("clts");
    if (owner) {
        asm volatile("fxsave %0" : "=m"(owner->fpu));
    }
    if (self->fpu_used) {
        asm volatile("fxrstor %0" : : "m"(self->fpu));
    } else {
        asm volatile("fninit; ldmxcsr %0" : : "m"(mxcsr));
        self->fpu_used = true;
    }
    owner = self;
    return true;
}

void fpu_forget(struct task *task) {
    if (owner == task) {
        owner = NULL;
    }
}
