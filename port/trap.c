// Dispatch of interrupts and exceptions.
//
// An exception in code that Python reached becomes a Python exception: the frame
// is rewritten so that IRET lands in a function that raises cpu.HostFault, on the
// stack of the innermost nlr_push (whatever lies below it is dead by then, and the
// interrupted RSP may be what is broken). With nowhere to raise to, panic.
//
// A pending exception (Ctrl-C, watchdog) cannot be seen by generated machine code,
// which has no checks in loops. When an interrupt ends in such code it is redirected
// to raise there; when it ends in C, the timer tries again a little later.
//
// Source: SDM Vol. 3A, "Interrupt and Exception Handling".
#include "py/gc.h"
#include "py/mpstate.h"
#include "py/runtime.h"
#include "port/apic.h"
#include "port/exec.h"
#include "port/hostfault.h"
#include "port/mce.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/vcpu.h"
#include "port/written.h"
#include "port/x86.h"

#define NLR_RSP      2 // index into nlr_buf_t.regs (py/nlrx64.c)
#define RFLAGS_CLEAR 0x54500ull // TF, DF, NT, AC... off while raising
#define RETRY_US     50

#define FIRST_OF_APIC 16 // the lowest vector that the local APIC delivers

extern const char native_start[], native_end[];

static struct {
    trap_handler_t handlers[256];
    unsigned depth; // interrupts being handled
    uint64_t unclaimed; // interrupts without a handler
    uint64_t nmis;
} trap;

void trap_set_handler(unsigned vector, trap_handler_t handler) {
    trap.handlers[vector] = handler;
}

uint64_t trap_unclaimed(void) {
    return trap.unclaimed;
}

uint64_t trap_nmis(void) {
    return trap.nmis;
}

const char *trap_name(unsigned vector) {
    static const char names[][4] = {
        "#DE",
        "#DB",
        "NMI",
        "#BP",
        "#OF",
        "#BR",
        "#UD",
        "#NM",
        "#DF",
        "9",
        "#TS",
        "#NP",
        "#SS",
        "#GP",
        "#PF",
        "15",
        "#MF",
        "#AC",
        "#MC",
        "#XM",
        "#VE",
        "#CP",
    };
    return vector < MP_ARRAY_SIZE(names) ? names[vector] : "?";
}

// Whether rip lies in machine code that MicroPython generated, frozen or not.
static bool in_generated_code(uint64_t rip) {
    return (rip >= (uintptr_t)native_start && rip < (uintptr_t)native_end) ||
           exec_contains((void *)rip);
}

__attribute__((weak)) bool vmx_nm_trap(void) {
    return false;
}

// IRET lands in function(rdi, rsi, rdx, rcx), as if it had been called.
static void redirect(trap_frame_t *frame, void (*function)(void), uint64_t rsp) {
    frame->rip = (uintptr_t)function;
    frame->rsp = ((rsp - 256) & ~15ull) - 8;
    frame->rflags = (frame->rflags & ~RFLAGS_CLEAR) | RFLAGS_IF;
}

volatile uint32_t host_attention;
volatile bool trap_alarm;

// NMI, #DF and #MC, which may occur anywhere, each on a stack of its own. Returns where the interrupted code can go on.
static void alarm(trap_frame_t *frame) {
    const char *reason = trap_name(frame->vector);
    if (frame->vector == 2) {
        trap.nmis++;
    } else if (frame->vector != 18 || !mce_survived(&reason)) {
        panic(reason, frame);
    }
    host_attention |= ATTENTION_NEEDED;
    trap_alarm = true;
}

static void exception(trap_frame_t *frame) {
    unsigned vector = frame->vector;
    if (vector == 7 && vmx_nm_trap()) {
        return;
    }
    if (vector == 14 && written_fault(read_cr2(), frame->error_code)) {
        return;
    }
    if (vector >= FIRST_OF_APIC && apic_in_service(vector)) {
        trap.unclaimed++; // an interrupt: the local APIC delivers these vectors, too
        apic_eoi();
        return;
    }
    if (vector == 2 || vector == 8 || vector == 18) {
        alarm(frame);
        return;
    }
    nlr_buf_t *top = MP_STATE_THREAD(nlr_top);
    if (top == NULL || trap.depth != 0 || (MP_STATE_THREAD(gc_lock_depth) & GC_COLLECT_FLAG)) {
        panic(trap_name(vector), frame);
    }
    frame->rdi = vector;
    frame->rsi = frame->error_code;
    frame->rdx = frame->rip;
    frame->rcx = vector == 14 ? read_cr2() : 0;
    redirect(frame, (void (*)(void))hostfault_raise, (uintptr_t)top->regs[NLR_RSP]);
}

static void raise_pending(void) {
    mp_handle_pending(true);
    // Nothing was pending after all: there is no way back into the interrupted code.
    mp_raise_type(&mp_type_KeyboardInterrupt);
}

static void interrupt(trap_frame_t *frame) {
    trap.depth++;
    trap_handler_t handler = trap.handlers[frame->vector];
    if (handler != NULL) {
        handler(frame);
    } else {
        trap.unclaimed++;
    }
    if (frame->vector != TRAP_SPURIOUS && frame->vector >= TRAP_IRQ_BASE) {
        apic_eoi();
    }
    trap.depth--;
    if (frame->vector != TRAP_TIMER) {
        host_attention |= ATTENTION_NEEDED; // a guest that exits constantly would delay it
    }
    if (MP_STATE_MAIN_THREAD(mp_pending_exception) != MP_OBJ_NULL) {
        if (in_generated_code(frame->rip)) {
            redirect(frame, raise_pending, frame->rsp);
        } else {
            timer_set(TIMER_RETRY, rdtsc() + timer_us(RETRY_US));
        }
    }
}

void trap_dispatch(trap_frame_t *frame);
void trap_dispatch(trap_frame_t *frame) {
    if (frame->vector < 32) {
        exception(frame);
    } else {
        interrupt(frame);
    }
}
