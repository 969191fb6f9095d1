// Exceptions that end what a person typed at the prompt: Python decides how they are printed.
//
// An exception of a `raise` statement is distinguished from one of the interpreter: the first reports a mistake of the
// caller, the second a fault of the code. MicroPython's pyexec.c prints by errors_print() (Makefile).
#include "port/errors.h"
#include "py/runtime.h"
#include "shared/runtime/pyexec.h"

mp_obj_t __real_mp_make_raise_obj(mp_obj_t o);
mp_obj_t __wrap_mp_make_raise_obj(mp_obj_t o);

void errors_init(void) {
    MP_STATE_PORT(errors_hook) = mp_const_none;
    MP_STATE_PORT(errors_raised) = MP_OBJ_NULL;
}

mp_obj_t __wrap_mp_make_raise_obj(mp_obj_t o) {
    mp_obj_t raised = __real_mp_make_raise_obj(o);
    MP_STATE_PORT(errors_raised) = raised;
    return raised;
}

// The traceback as Python has it: (file, line, function), the outermost call first.
static mp_obj_t traceback(mp_obj_t error) {
    size_t n, *values;
    mp_obj_exception_get_traceback(error, &n, &values);
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (size_t i = n; i >= 3; i -= 3) {
        mp_obj_t items[3] = {MP_OBJ_NEW_QSTR(values[i - 3]), MP_OBJ_NEW_SMALL_INT(values[i - 2]),
            MP_OBJ_NEW_QSTR(values[i - 1])};
        mp_obj_list_append(list, mp_obj_new_tuple(3, items));
    }
    return list;
}

// Whether the hook has printed the exception.
static bool printed_by_hook(mp_obj_t error) {
    if (pyexec_mode_kind != PYEXEC_MODE_FRIENDLY_REPL ||
        MP_STATE_PORT(errors_hook) == mp_const_none ||
        !mp_obj_exception_match(error, MP_OBJ_FROM_PTR(&mp_type_Exception))) {
        return false;
    }
    bool done = false; // also where the hook fails
    bool raised = error == MP_STATE_PORT(errors_raised);
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t args[3] = {error, traceback(error), mp_obj_new_bool(raised)};
        done = mp_obj_is_true(mp_call_function_n_kw(MP_STATE_PORT(errors_hook), 3, 0, args));
        nlr_pop();
    }
    return done;
}

void errors_print(const mp_print_t *print, mp_obj_t error) {
    if (!printed_by_hook(error)) {
        mp_obj_print_exception(print, error);
    }
}

// errors(f): f(exception, traceback, raised) is called for an exception that ends a line typed at the prompt; it
// returns whether it has printed it. traceback: list of (file, line, function), the outermost call first; raised: by a
// `raise` statement. None removes f.
static mp_obj_t mod_errors(mp_obj_t hook) {
    MP_STATE_PORT(errors_hook) = hook;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_errors_obj, mod_errors);

MP_REGISTER_ROOT_POINTER(mp_obj_t errors_hook);
MP_REGISTER_ROOT_POINTER(mp_obj_t errors_raised);
