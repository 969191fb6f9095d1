// Calls of handlers, and callables made for them.
#ifndef PCANEL_BOUND_H
#define PCANEL_BOUND_H

#include "py/objfun.h"
#include "py/runtime.h"

#define BOUND_MOST (5) // contexts, and arguments of a call

typedef struct {
    mp_obj_base_t base;
    mp_obj_t function;
    size_t contexts;
    mp_obj_t context[];
} bound_t;

extern const mp_obj_type_t bound_type;
MP_DECLARE_CONST_FUN_OBJ_VAR_BETWEEN(bound_bind_obj);

// As mp_call_function_n_kw(), with direct calls of functions of the viper emitter.
static inline mp_obj_t bound_direct(mp_obj_t function, size_t n_args, const mp_obj_t *args) {
    if (MP_LIKELY(mp_obj_is_exact_type(function, &mp_type_fun_viper))) {
        mp_call_fun_t fun =
            (mp_call_fun_t)((const mp_obj_fun_bc_t *)MP_OBJ_TO_PTR(function))->bytecode;
        return fun(function, n_args, 0, args);
    }
    return mp_call_function_n_kw(function, n_args, 0, args);
}

static inline mp_obj_t bound_call_n(const bound_t *self, size_t n_args, const mp_obj_t *args) {
    mp_obj_t all[2 * BOUND_MOST];
    size_t n = self->contexts;
    for (size_t i = 0; i < n; i++) {
        all[i] = self->context[i];
    }
    for (size_t i = 0; i < n_args; i++) {
        all[n + i] = args[i];
    }
    return bound_direct(self->function, n + n_args, all);
}

// Calls a handler, usually a viper function or a bound one.
static inline mp_obj_t bound_handler(mp_obj_t function, mp_obj_t arg) {
    if (MP_LIKELY(mp_obj_is_obj(function))) {
        const mp_obj_fun_bc_t *self = MP_OBJ_TO_PTR(function);
        if (self->base.type == &mp_type_fun_viper) {
            return ((mp_call_fun_t)self->bytecode)(function, 1, 0, &arg);
        }
        if (self->base.type == &bound_type) {
            return bound_call_n(MP_OBJ_TO_PTR(function), 1, &arg);
        }
    }
    return mp_call_function_n_kw(function, 1, 0, &arg);
}
#endif
