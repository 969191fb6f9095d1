// Fast versions of the functions that native and viper code calls most.
//
// Compiled Python calls MicroPython through a table of functions, mp_fun_table. The linker redirects references to the
// copy here (--wrap), in which five entries handle the commonest cases: a call of a viper or C function, the words of a
// vCPU's frame or of an array as a pointer, small integers, and an item of a list. Every other case goes to
// MicroPython's own function, so that the semantics stay the same.

#include "py/cstack.h"
#include "py/nativeglue.h"
#include "py/objarray.h"
#include "py/objlist.h"
#include "py/runtime.h"
#include "py/runtime0.h"
#include "py/smallint.h"
#include "port/bound.h"
#include "port/native.h"
#include "port/vcpu.h"

extern const mp_fun_table_t __real_mp_fun_table;
mp_fun_table_t __wrap_mp_fun_table;

static mp_uint_t from_obj(mp_obj_t obj, mp_uint_t type) {
    if (MP_LIKELY(mp_obj_is_obj(obj))) {
        if (type >= MP_NATIVE_TYPE_PTR && type <= MP_NATIVE_TYPE_PTR32) {
            const mp_obj_type_t *of = ((const mp_obj_base_t *)MP_OBJ_TO_PTR(obj))->type;
            if (MP_LIKELY(of == &vcpu_type)) {
                return (mp_uint_t)((const vcpu_t *)MP_OBJ_TO_PTR(obj))->frame;
            }
            if (of == &mp_type_array || of == &mp_type_bytearray) {
                return (mp_uint_t)((const mp_obj_array_t *)MP_OBJ_TO_PTR(obj))->items;
            }
        }
    } else if (mp_obj_is_small_int(obj) && type >= MP_NATIVE_TYPE_INT &&
               type <= MP_NATIVE_TYPE_PTR32) {
        return MP_OBJ_SMALL_INT_VALUE(obj); // seldom: see host-tools/setup/micropython
    }
    return __real_mp_fun_table.native_from_obj(obj, type);
}

static mp_obj_t to_obj(mp_uint_t value, mp_uint_t type) {
    if (MP_LIKELY(type == MP_NATIVE_TYPE_INT && MP_SMALL_INT_FITS((mp_int_t)value))) {
        return MP_OBJ_NEW_SMALL_INT(value);
    }
    return __real_mp_fun_table.native_to_obj(value, type);
}

// Loads list[i].
static mp_obj_t subscript(mp_obj_t base, mp_obj_t index, mp_obj_t value) {
    if (MP_LIKELY(value == MP_OBJ_SENTINEL && mp_obj_is_small_int(index) &&
                  mp_obj_is_exact_type(base, &mp_type_list))) {
        const mp_obj_list_t *list = MP_OBJ_TO_PTR(base);
        size_t i = MP_OBJ_SMALL_INT_VALUE(index); // a negative index becomes large
        if (MP_LIKELY(i < list->len)) {
            return list->items[i];
        }
    }
    return __real_mp_fun_table.obj_subscr(base, index, value);
}

// As mp_cstack_check(), without a call where there is room.
static inline void check_stack(void) {
    char *top;
    __asm__("mov %%rsp, %0" : "=r"(top)); // __builtin_frame_address() would make a frame
    size_t used = MP_STATE_THREAD(stack_top) - top;
    if (MP_UNLIKELY(used >= MP_STATE_THREAD(stack_limit))) {
        mp_cstack_check();
    }
}

// n_args: positional ones, and from bit 8 on how many follow by keyword.
static mp_obj_t call_function(mp_obj_t function, size_t n_args, const mp_obj_t *args) {
    if (MP_LIKELY(n_args < 0x100 && mp_obj_is_obj(function))) {
        const mp_obj_fun_bc_t *self = MP_OBJ_TO_PTR(function);
        if (self->base.type == &mp_type_fun_viper) {
            check_stack();
            return ((mp_call_fun_t)self->bytecode)(function, n_args, 0, args);
        }
        if (self->base.type == &bound_type && n_args <= BOUND_MOST) {
            check_stack();
            return bound_call_n(MP_OBJ_TO_PTR(function), n_args, args);
        }
        const mp_obj_fun_builtin_fixed_t *builtin = MP_OBJ_TO_PTR(function);
        if (n_args == 3 && self->base.type == &mp_type_fun_builtin_3) {
            return builtin->fun._3(args[0], args[1], args[2]);
        }
        if (n_args == 2 && self->base.type == &mp_type_fun_builtin_2) {
            return builtin->fun._2(args[0], args[1]);
        }
        if (n_args == 1 && self->base.type == &mp_type_fun_builtin_1) {
            return builtin->fun._1(args[0]);
        }
    }
    return __real_mp_fun_table.call_function_n_kw(function, n_args, args);
}

// args: the function, and its object or NULL, as mp_load_method() leaves them.
static mp_obj_t call_method(size_t n_args, size_t n_kw, const mp_obj_t *args) {
    if (MP_LIKELY(n_kw == 0)) {
        size_t self = args[1] != MP_OBJ_NULL;
        return call_function(args[0], n_args + self, args + 2 - self);
    }
    return __real_mp_fun_table.call_method_n_kw(n_args, n_kw, args);
}

void native_init(void) {
    __wrap_mp_fun_table = __real_mp_fun_table;
    __wrap_mp_fun_table.native_from_obj = from_obj;
    __wrap_mp_fun_table.native_to_obj = to_obj;
    __wrap_mp_fun_table.obj_subscr = subscript;
    __wrap_mp_fun_table.call_function_n_kw = call_function;
    __wrap_mp_fun_table.call_method_n_kw = call_method;
}
