// Waiting, of the prompt and of sleeps, with the idle hook in which guests run.
#include "py/runtime.h"
#include "port/budget.h"
#include "port/idle.h"
#include "port/mailbox.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/uart.h"
#include "port/watch.h"
#include "port/x86.h"
#include "shared/runtime/interrupt_char.h"
#include "shared/runtime/pyexec.h"

typedef struct {
    uint64_t deadline; // host TSC; 0 = none
    bool input; // whether console input ends it: not a sleep
} wait_t;

static struct {
    bool in_hook;
    bool forced; // the hook was interrupted because it did not return
    uint64_t calls; // of the hook
    uint64_t stuck; // the call that Ctrl-C found running
    uint64_t idle_until; // TSC up to which the hook found no guest to run; 0: it found one
    wait_t wait; // the current one
} state;

void idle_init(void) {
    MP_STATE_PORT(cpu_idle_hook) = mp_const_none;
    uart_listen(MP_OBJ_NULL);
    state.in_hook = false;
    state.idle_until = 0;
    timer_set(TIMER_CORE, 0);
}

bool idle_enter_guests(void) {
    bool inside = state.in_hook;
    if (!inside) {
        state.calls++;
        state.in_hook = true;
    }
    return inside;
}

void idle_leave_guests(bool inside) {
    state.in_hook = inside;
}

void idle_ctrl_c(void) {
    if (state.in_hook) {
        state.stuck = state.calls;
        timer_set(TIMER_STUCK, rdtsc() + tsc_hz);
    }
}

void idle_stuck(void) {
    if (state.in_hook && state.stuck == state.calls) {
        state.forced = true;
        mp_sched_keyboard_interrupt();
    }
}

static bool due(void) {
    return state.wait.deadline != 0 && rdtsc() >= state.wait.deadline;
}

// Whether the current wait has reason to end.
static bool wanted(void) {
    return (state.wait.input && uart_rx_any(0) != 0) ||
           MP_STATE_MAIN_THREAD(mp_pending_exception) != MP_OBJ_NULL ||
           MP_STATE_VM(sched_state) == MP_SCHED_PENDING;
}

// The deadline is tested with interrupts off: if its interrupt had come before, no other would end
// the HLT. attend: do not halt while host_attention is set.
static void halt_until_interrupt(uint64_t deadline, bool attend) {
    irq_disable();
    if ((attend && host_attention) || wanted() || due() || (deadline != 0 && rdtsc() >= deadline)) {
        irq_enable();
    } else {
        irq_enable_and_halt();
    }
}

// Whether an exception is raised in the code that waits: the hook did not cause it.
static bool is_for_caller(mp_obj_t error) {
    mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(error));
    return mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_KeyboardInterrupt)) ||
           mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit)) ||
           mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_Timeout));
}

static void call_hook(mp_obj_t hook, uint64_t deadline) {
    nlr_buf_t nlr;
    state.calls++;
    state.idle_until = 0;
    state.forced = false;
    state.in_hook = true;
    trap_alarm = false; // the hook reads alarms at its start
    if (nlr_push(&nlr) == 0) {
        mp_call_function_1(hook, mp_obj_new_int_from_uint(deadline));
        nlr_pop();
        state.in_hook = false;
        return;
    }
    state.in_hook = false;
    mp_obj_t error = MP_OBJ_FROM_PTR(nlr.ret_val);
    if (!state.forced && is_for_caller(error)) {
        state.wait = (wait_t){0};
        nlr_jump(nlr.ret_val);
    }
    MP_STATE_PORT(cpu_idle_hook) = mp_const_none;
    mp_printf(MICROPY_ERROR_PRINTER, "\nThe idle hook %s and is removed:\n",
        state.forced ? "did not return" : "failed");
    mp_obj_print_exception(MICROPY_ERROR_PRINTER, error);
}

static bool reading(void) {
    return pyexec_mode_kind == PYEXEC_MODE_RAW_REPL && mp_interrupt_char < 0;
}

void idle_awake(void) {
    state.idle_until = 0;
}

// A program's characters arrive a hundred microseconds apart, and the hook takes most of that time
// to find that nothing can run. So between two characters it is called only if a guest's timer is
// due, a guest's console has moved, or Python has run since the last call.
static bool stays_idle(void) {
    return state.idle_until != 0 && reading() && !uart_guests_moved && rdtsc() < state.idle_until;
}

static void halt_until_due(void) {
    uint64_t until = state.idle_until == UINT64_MAX ? 0 : state.idle_until;
    timer_set(TIMER_CORE, until);
    halt_until_interrupt(until, false);
    timer_set(TIMER_CORE, 0);
}

// A scheduled callback ends the hook; this one does nothing else.
static mp_obj_t nothing(mp_obj_t arg) {
    return arg;
}
static MP_DEFINE_CONST_FUN_OBJ_1(nothing_obj, nothing);

void idle_end(void) {
    mp_sched_schedule(MP_OBJ_FROM_PTR(&nothing_obj), mp_const_none);
}

void idle_wait(uint64_t deadline, bool input) {
    if (!state.in_hook && mailbox_rung()) {
        mailbox_serve();
        return;
    }
    mp_obj_t hook = MP_STATE_PORT(cpu_idle_hook);
    wait_t outer = state.wait; // the wait whose hook runs: a policy may sleep inside it
    state.wait = (wait_t){deadline, input};
    timer_set(TIMER_WAIT, deadline);
    if (state.in_hook) {
        halt_until_interrupt(deadline, false);
        timer_set(TIMER_WAIT, outer.deadline);
    } else if (hook == mp_const_none || hook == MP_OBJ_NULL) {
        halt_until_interrupt(deadline, false);
    } else if (budget_overdue()) {
        call_hook(hook, deadline); // it collects, even if wanted() is true
    } else if (input && deadline == 0 && stays_idle()) {
        halt_until_due();
    } else if (!wanted() && !due()) {
        call_hook(hook, deadline); // with nothing to run it returns at once: do not spin on it
    }
    state.wait = outer; // none while a line runs
}

// idle_hook(f): f(deadline_tsc) runs while the prompt or a sleep waits; it returns
// when wanted() is true or the deadline (0 = none) has passed. None removes it.
static mp_obj_t mod_idle_hook(mp_obj_t hook) {
    if (hook != mp_const_none && !mp_obj_is_callable(hook)) {
        mp_raise_TypeError(MP_ERROR_TEXT("callable or None expected"));
    }
    MP_STATE_PORT(cpu_idle_hook) = hook;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_idle_hook_obj, mod_idle_hook);

static mp_obj_t mod_wanted(void) {
    return mp_obj_new_bool(wanted() || due() || trap_alarm || mailbox_rung());
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_wanted_obj, mod_wanted);

// idle(deadline_tsc) -> bool: HLT until the next interrupt, or the deadline (0 = none).
// True where more than the deadline ended it: a host interrupt, or wanted().
static mp_obj_t mod_idle(mp_obj_t deadline_in) {
    uint64_t deadline = mp_obj_get_int_truncated(deadline_in);
    // Set before the wait: an interrupt during it changes both, and consoles and drivers are serviced next.
    uart_guests_moved = false;
    state.idle_until = !state.in_hook ? 0 : deadline != 0 ? deadline : UINT64_MAX;
    timer_set(TIMER_CORE, deadline);
    halt_until_interrupt(deadline, true);
    timer_set(TIMER_CORE, 0);
    // In one instruction: an interrupt between a test and a reset would be lost, and its device never be serviced.
    bool more = __atomic_exchange_n(&host_attention, 0, __ATOMIC_RELAXED) != 0;
    return mp_obj_new_bool(more || wanted() || due());
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_idle_obj, mod_idle);

// reading() -> whether the raw REPL waits for a program's input; anything printed then would be taken for
// its answer.
static mp_obj_t mod_reading(void) {
    return mp_obj_new_bool(reading());
}
MP_DEFINE_CONST_FUN_OBJ_0(cpu_reading_obj, mod_reading);

MP_REGISTER_ROOT_POINTER(mp_obj_t cpu_idle_hook);
