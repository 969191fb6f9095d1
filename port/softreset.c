// Requests for a soft reset, which destroys every guest. A program requests one by the raw REPL's
// Ctrl-D (mpremote soft-reset), code by machine.soft_reset(). In a program's script sys.exit() only
// ends the script. At the prompt, Ctrl-D and sys.exit() request one, and the hook decides, since
// Python knows whether there are guests.
#include "py/runtime.h"
#include "port/idle.h"
#include "port/softreset.h"
#include "shared/runtime/pyexec.h"

#define EXEC_FLAG_PRINT_EOF (1u << 0) // of pyexec.c: the raw REPL's scripts

static bool asked; // by machine.soft_reset()
static bool exit_resets; // a program's sys.exit() requests one, too

void softreset_init(void) {
    MP_STATE_PORT(softreset_hook) = mp_const_none;
    asked = false;
    exit_resets = false;
}

static void say_status(mp_obj_t error) {
    mp_obj_t value = mp_obj_exception_get_value(error);
    if (mp_obj_is_true(value)) {
        mp_printf(&mp_plat_print, "SystemExit: ");
        mp_obj_print_helper(&mp_plat_print, value, PRINT_STR);
        mp_printf(&mp_plat_print, "\n");
    }
}

void softreset_after_exec(unsigned exec_flags, void *error, int *ret) {
    idle_awake();
    if (!(*ret & PYEXEC_FORCED_EXIT)) {
        asked = false; // the request is withdrawn
        return;
    }
    if (asked || exit_resets || !(exec_flags & EXEC_FLAG_PRINT_EOF)) {
        return;
    }
    *ret = 0;
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) { // the value may be any object
        say_status(MP_OBJ_FROM_PTR(error));
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
}

bool softreset_wanted(void) {
    mp_obj_t hook = MP_STATE_PORT(softreset_hook);
    if (asked || pyexec_mode_kind == PYEXEC_MODE_RAW_REPL || hook == mp_const_none) {
        return true;
    }
    bool wanted = true; // a failing hook does not prevent the reset
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        wanted = mp_obj_is_true(mp_call_function_0(hook));
        nlr_pop();
    } else {
        mp_obj_print_exception(&mp_plat_print, MP_OBJ_FROM_PTR(nlr.ret_val));
    }
    return wanted;
}

static mp_obj_t machine_soft_reset(void) {
    asked = true;
    mp_raise_type(&mp_type_SystemExit);
}
MP_DEFINE_CONST_FUN_OBJ_0(machine_soft_reset_obj, machine_soft_reset);

// soft_reset_hook(f): f() -> bool decides whether a soft reset requested at the prompt takes place.
// None removes it.
static mp_obj_t mod_soft_reset_hook(mp_obj_t hook) {
    if (hook != mp_const_none && !mp_obj_is_callable(hook)) {
        mp_raise_TypeError(MP_ERROR_TEXT("callable or None expected"));
    }
    MP_STATE_PORT(softreset_hook) = hook;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_soft_reset_hook_obj, mod_soft_reset_hook);

// exit_resets(flag): whether sys.exit() in a program's script is a soft reset, as on MicroPython's boards;
// MicroPython's test runner relies on it. A soft reset clears the flag; boot.py can set it again.
static mp_obj_t mod_exit_resets(mp_obj_t flag) {
    exit_resets = mp_obj_is_true(flag);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(cpu_exit_resets_obj, mod_exit_resets);

MP_REGISTER_ROOT_POINTER(mp_obj_t softreset_hook);
