// Calls the scheduler from the middle of bytecode, like an interrupt.
//
// The interrupted code's state in the port is suspended meanwhile: its watch() does not run
// on, no exception meant for it is raised, and allocations of guests do not count against its
// limit.
#include <stdarg.h>
#include <string.h>
#include "py/emit.h"
#include "py/lexer.h"
#include "py/mpprint.h"
#include "py/objtype.h"
#include "py/parse.h"
#include "py/runtime.h"
#include "py/scope.h"
#include "port/budget.h"
#include "port/idle.h"
#include "port/watch.h"
#include "port/preempt.h"
#include "port/x86.h"

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

// In the middle of some functions of MicroPython, where nothing that others use is half changed: before a line is
// compiled, between two of its tokens, two names of one of the compiler's passes, two comparisons of list.sort() or sorted(), two
// items of which a list is made, two pieces of what is printed, a repr's characters among them. Names and the hashes of
// long strings do so themselves (qstrs.c). The linker leads their calls here (--wrap); of mp_binary_op() those of py/objlist.c only, of
// mp_store_name() those of py/vm.c (Makefile).

void __real_mp_lexer_to_next(mp_lexer_t *lex);
void __wrap_mp_lexer_to_next(mp_lexer_t *lex);
void __wrap_mp_lexer_to_next(mp_lexer_t *lex) {
    preempt_look();
    __real_mp_lexer_to_next(lex);
}

mp_parse_tree_t __real_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind);
mp_parse_tree_t __wrap_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind);
mp_parse_tree_t __wrap_mp_parse(mp_lexer_t *lex, mp_parse_input_kind_t kind) {
    preempt_look();
    return __real_mp_parse(lex, kind);
}

id_info_t *__real_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind);
id_info_t *__wrap_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind);
id_info_t *__wrap_scope_find_or_add_id(scope_t *scope, qstr name, id_info_kind_t kind) {
    preempt_look();
    return __real_scope_find_or_add_id(scope, name, kind);
}

qstr_short_t __real_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name);
qstr_short_t __wrap_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name);
qstr_short_t __wrap_mp_emit_common_use_qstr(mp_emit_common_t *emit, qstr name) {
    preempt_look();
    return __real_mp_emit_common_use_qstr(emit, name);
}

void __real_scope_free(scope_t *scope);
void __wrap_scope_free(scope_t *scope);
void __wrap_scope_free(scope_t *scope) {
    preempt_look();
    __real_scope_free(scope);
}

int __wrap_mp_printf(const mp_print_t *print, const char *fmt, ...);
int __wrap_mp_printf(const mp_print_t *print, const char *fmt, ...) {
    preempt_look();
    va_list args;
    va_start(args, fmt);
    int printed = mp_vprintf(print, fmt, args);
    va_end(args);
    return printed;
}

mp_obj_t preempt_binary_op(mp_binary_op_t op, mp_obj_t left, mp_obj_t right);
mp_obj_t preempt_binary_op(mp_binary_op_t op, mp_obj_t left, mp_obj_t right) {
    preempt_look();
    return mp_binary_op(op, left, right);
}

mp_obj_t preempt_iternext(mp_obj_t iterator);
mp_obj_t preempt_iternext(mp_obj_t iterator) {
    preempt_look();
    return mp_iternext(iterator);
}

// A module's own code, which may go on for long without a branch.
void preempt_store_name(qstr name, mp_obj_t object);
void preempt_store_name(qstr name, mp_obj_t object) {
    preempt_look();
    mp_store_name(name, object);
}

// An import: among some hundred frozen modules the right one is found by its name.
size_t preempt_strlen(const char *name);
size_t preempt_strlen(const char *name) {
    preempt_look();
    return strlen(name);
}

// The % of strings, between two of what it converts; floating point is not for this file (float.mk).
int preempt_print_strn(
    const mp_print_t *print, const char *str, size_t len, int flags, char fill, int width);
int preempt_print_strn(
    const mp_print_t *print, const char *str, size_t len, int flags, char fill, int width) {
    preempt_look();
    return mp_print_strn(print, str, len, flags, fill, width);
}

int preempt_print_mp_int(const mp_print_t *print, mp_obj_t value, int base, int base_char,
    int flags, char fill, int width, int precision);
int preempt_print_mp_int(const mp_print_t *print, mp_obj_t value, int base, int base_char,
    int flags, char fill, int width, int precision) {
    preempt_look();
    return mp_print_mp_int(print, value, base, base_char, flags, fill, width, precision);
}

// A constructor, which may set dozens of attributes without a branch: each new one can move all of the object's others.
// Attributes that are there already change without an interruption.
static bool adds_attribute(mp_obj_t object, qstr name) {
    if (!mp_obj_is_instance_type(mp_obj_get_type(object))) {
        return false;
    }
    mp_obj_instance_t *instance = MP_OBJ_TO_PTR(object);
    return mp_map_lookup(&instance->members, MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP) == NULL;
}

void preempt_store_attr(mp_obj_t object, qstr name, mp_obj_t value);
void preempt_store_attr(mp_obj_t object, qstr name, mp_obj_t value) {
    if (preempt_due() && adds_attribute(object, name)) {
        preempt();
    }
    mp_store_attr(object, name, value);
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
