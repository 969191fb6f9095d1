// Calls the scheduler from the middle of bytecode, like an interrupt.
//
// The interrupted code's state in the port is suspended meanwhile: its watch() does not run
// on, no exception meant for it is raised, and allocations of guests do not count against its
// limit.
#include "py/mpprint.h"
#include "py/runtime.h"
#include "port/budget.h"
#include "port/idle.h"
#include "port/watch.h"
#include "port/preempt.h"

uint64_t preempt_at;
unsigned preempt_holds;

void preempt(void) {
    mp_obj_t hook = MP_STATE_PORT(preempt_hook);
    if (hook == mp_const_none || MP_STATE_MAIN_THREAD(mp_pending_exception) != MP_OBJ_NULL ||
        MP_STATE_VM(vm_abort)) {
        return;
    }
    preempt_at = 0; // the hook itself is not preempted
    watch_t watch = watch_suspend();
    budget_t budget = budget_suspend();
    bool inside = idle_enter_guests();
    nlr_buf_t nlr;
    uint64_t again = 0;
    if (nlr_push(&nlr) == 0) {
        again = mp_obj_get_int_truncated(mp_call_function_0(hook));
        nlr_pop();
    } else if (mp_obj_exception_match(
                   MP_OBJ_FROM_PTR(nlr.ret_val), MP_OBJ_FROM_PTR(&mp_type_KeyboardInterrupt))) {
        again = preempt_at;
        mp_sched_keyboard_interrupt(); // raised in the interrupted code
    } else {
        mp_printf(MICROPY_ERROR_PRINTER, "\nA guest did not get the CPU when it was due:\n");
        mp_obj_print_exception(MICROPY_ERROR_PRINTER, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
    idle_leave_guests(inside);
    watch_resume(watch);
    budget_resume(budget);
    preempt_at = again;
}

// preempt(hook) -> hpa of the word that holds the TSC from which on hook() is called, 0 for
// never. It is called between two steps of whatever bytecode runs then, with the word cleared;
// what it returns goes there.
static mp_obj_t mod_preempt(mp_obj_t hook) {
    MP_STATE_PORT(preempt_hook) = hook;
    preempt_at = 0;
    return mp_obj_new_int_from_uint((uintptr_t)&preempt_at);
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_preempt_obj, mod_preempt);

// hold(more) -> holds: as long as there are any, no bytecode is preempted. more: 1, -1 or 0.
static mp_obj_t mod_hold(mp_obj_t more) {
    preempt_holds += mp_obj_get_int(more);
    return MP_OBJ_NEW_SMALL_INT(preempt_holds);
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_hold_obj, mod_hold);

MP_REGISTER_ROOT_POINTER(mp_obj_t preempt_hook);
