// Calls of handlers, and callables made for them.
#ifndef PCANEL_BOUND_H
#define PCANEL_BOUND_H

#include "py/objfun.h"
#include "py/runtime.h"

#define BOUND_MOST (8) // contexts, and arguments of a call
#define BOUND_FEW  (4) // contexts that every object has room for, used or not

typedef struct {
    mp_obj_base_t base;
    mp_obj_t function;
    mp_call_fun_t entry; // of the function's code, if it is a viper function; else NULL
    size_t contexts;
    mp_obj_t context[];
} bound_t;

extern const mp_obj_type_t bound_type;
MP_DECLARE_CONST_FUN_OBJ_VAR_BETWEEN(bound_bind_obj);

// Calls the function. Most objects have few contexts: the first four are copied whether or not they are used.
static inline mp_obj_t bound_call_n(const bound_t *self, size_t n_args, const mp_obj_t *args) {
    mp_obj_t all[2 * BOUND_MOST];
    size_t n = self->contexts;
    mp_obj_t *behind = &all[n];
    all[0] = self->context[0];
    all[1] = self->context[1];
    all[2] = self->context[2];
    all[3] = self->context[3];
    _Static_assert(BOUND_FEW == 4, "copied above");
    for (size_t i = BOUND_FEW; i < n; i++) {
        all[i] = self->context[i];
    }
    if (MP_LIKELY(n_args == 1)) {
        behind[0] = args[0];
    } else {
        for (size_t i = 0; i < n_args; i++) {
            behind[i] = args[i];
        }
    }
    if (MP_LIKELY(self->entry != NULL)) {
        return self->entry(self->function, n + n_args, 0, all);
    }
    return mp_call_function_n_kw(self->function, n + n_args, 0, all);
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
