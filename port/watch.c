// The watchdog of Python code: cpu.watch(), cpu.guard(), cpu.attempt(), cpu.limited(), cpu.shield(), cpu.Timeout.
#include "py/objexcept.h"
#include "py/runtime.h"
#include "port/budget.h"
#include "port/timer.h"
#include "port/watch.h"
#include "port/x86.h"
#include "shared/runtime/interrupt_char.h"
#include "shared_constants.h"

#define SHOTS 3 // Timeouts that a guarded function may swallow

static unsigned shots; // Timeouts since watch()

// cpu.Timeout: the deadline of cpu.watch() has passed. A BaseException, as KeyboardInterrupt is, so that
// `except Exception` does not catch it.
MP_DEFINE_EXCEPTION(Timeout, BaseException)

void watch_init(void) {
    MP_STATE_PORT(cpu_timeout) = mp_obj_new_exception(&mp_type_Timeout);
    nlr_set_abort(NULL);
    timer_set(TIMER_WATCH, 0);
}

// Code in guard() that catches its Timeout gets another 50 ms later; after SHOTS of them
// an abort, which no `except` catches.
void watch_expired(void) {
    if (nlr_get_abort() != NULL) {
        timer_set(TIMER_WATCH, rdtsc() + tsc_hz / 20);
        if (shots++ >= SHOTS) {
            mp_sched_vm_abort(); // native code polls only for the Timeout, scheduled below
        }
    }
    mp_obj_exception_t *timeout = MP_OBJ_TO_PTR(MP_STATE_PORT(cpu_timeout));
    timeout->traceback_data = NULL;
    mp_sched_exception(MP_OBJ_FROM_PTR(timeout));
}

// watch(deadline_tsc): raises Timeout in the Python code that runs then; 0 disarms it,
// and cancels a Timeout that is pending.
static void watch(uint64_t deadline) {
    uint64_t flags = irq_save();
    timer_set(TIMER_WATCH, deadline);
    shots = 0;
    MP_STATE_VM(vm_abort) = false;
    if (MP_STATE_MAIN_THREAD(mp_pending_exception) == MP_STATE_PORT(cpu_timeout)) {
        MP_STATE_MAIN_THREAD(mp_pending_exception) = MP_OBJ_NULL;
    }
    irq_restore(flags);
}

watch_t watch_suspend(void) {
    watch_t suspended = {timer_get(TIMER_WATCH), rdtsc(), shots};
    if (suspended.deadline != 0) {
        timer_set(TIMER_WATCH, 0);
    }
    return suspended;
}

void watch_resume(watch_t suspended) {
    if (suspended.deadline != 0) {
        shots = suspended.shots;
        timer_set(TIMER_WATCH, suspended.deadline + (rdtsc() - suspended.since));
    }
}

static mp_obj_t mod_watch(mp_obj_t deadline) {
    watch(mp_obj_get_int_truncated(deadline));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_watch_obj, mod_watch);

// Calls f(argument), which may take `heap` bytes of the heap; 0: no limit. An f that catches the Timeout of watch()
// several times is aborted. Returns MP_OBJ_NULL, and the exception in *raised, where f ended by one.
static mp_obj_t guarded(mp_obj_t function, mp_obj_t argument, size_t heap, mp_obj_t *raised) {
    nlr_buf_t nlr;
    nlr_buf_t *outer = nlr_get_abort();
    mp_obj_dict_t *globals = mp_globals_get();
    mp_obj_dict_t *locals = mp_locals_get();
    size_t gc_locks = MP_STATE_THREAD(gc_lock_depth);
    unsigned holds = preempt_holds;
    budget_t budget = budget_begin(heap);
    if (nlr_push(&nlr) == 0) {
        nlr_set_abort(&nlr);
        mp_obj_t answer = mp_call_function_1(function, argument);
        nlr_pop();
        nlr_set_abort(outer);
        budget_end(budget);
        return answer;
    }
    nlr_set_abort(outer);
    budget_end(budget);
    *raised = MP_OBJ_FROM_PTR(nlr.ret_val);
    if (nlr.ret_val == NULL) {
        watch(0);
        // The abort skipped the frames in between: restore what they would have restored.
        mp_globals_set(globals);
        mp_locals_set(locals);
        MP_STATE_THREAD(gc_lock_depth) = gc_locks;
        preempt_holds = holds;
        *raised = mp_obj_new_exception_msg(
            &mp_type_Timeout, MP_ERROR_TEXT("caught and ignored until it was ended"));
    }
    return MP_OBJ_NULL;
}

// guard(f, argument, heap=0) -> f(argument); raises Timeout where f was aborted.
// heap: bytes of the heap that f may take before its allocations raise MemoryError (budget.c); 0: no limit.
static mp_obj_t mod_guard(size_t n_args, const mp_obj_t *args) {
    mp_obj_t raised;
    size_t heap = n_args > 2 ? mp_obj_get_int(args[2]) : 0;
    mp_obj_t answer = guarded(args[0], args[1], heap, &raised);
    if (answer == MP_OBJ_NULL) {
        nlr_raise(raised);
    }
    return answer;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_guard_obj, 2, 3, mod_guard);

// attempt(): as guard(), but an exception is returned, not raised: viper code cannot hold one
// that it has caught.
static mp_obj_t mod_attempt(size_t n_args, const mp_obj_t *args) {
    mp_obj_t raised;
    size_t heap = n_args > 2 ? mp_obj_get_int(args[2]) : 0;
    mp_obj_t answer = guarded(args[0], args[1], heap, &raised);
    return answer == MP_OBJ_NULL ? raised : answer;
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_attempt_obj, 2, 3, mod_attempt);

// limited(f, argument, account): as attempt(), with limits, counted and timed. account: address of the words that
// vmm/policies/account.py declares: calls of f, host TSC ticks of all calls, the limits of one call in ticks and in
// bytes of the heap.
static mp_obj_t mod_limited(mp_obj_t function, mp_obj_t argument, mp_obj_t account_in) {
    uint32_t *words = (uint32_t *)mp_obj_get_int_truncated(account_in);
    uint64_t *calls = (uint64_t *)(words + ACCOUNT_COUNT);
    uint64_t *ticks = (uint64_t *)(words + ACCOUNT_TICKS);
    uint64_t start = rdtsc();
    ++*calls;
    watch(start + *(uint64_t *)(words + ACCOUNT_LIMIT));
    mp_obj_t raised;
    mp_obj_t answer = guarded(function, argument, *(uint64_t *)(words + ACCOUNT_HEAP), &raised);
    watch(0);
    *ticks += rdtsc() - start;
    return answer == MP_OBJ_NULL ? raised : answer;
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_limited_obj, mod_limited);

// shield(f) -> f(), not interrupted: Ctrl-C is an ordinary character meanwhile, the watchdog's time stands still, and
// allocations count against no limit.
static mp_obj_t mod_shield(mp_obj_t function) {
    mp_handle_pending(true);
    int interrupt_char = mp_interrupt_char;
    watch_t suspended = watch_suspend();
    budget_t budget = budget_suspend();
    mp_hal_set_interrupt_char(-1);
    nlr_buf_t nlr;
    bool failed = nlr_push(&nlr) != 0;
    mp_obj_t answer = mp_const_none;
    if (!failed) {
        answer = mp_call_function_0(function);
        nlr_pop();
    }
    mp_hal_set_interrupt_char(interrupt_char);
    watch_resume(suspended);
    budget_resume(budget);
    if (failed) {
        nlr_jump(nlr.ret_val);
    }
    return answer;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_shield_obj, mod_shield);

MP_REGISTER_ROOT_POINTER(mp_obj_t cpu_timeout);
