// Calls of handlers, and callables made for them.
#ifndef PCANEL_BOUND_H
#define PCANEL_BOUND_H

#include "py/objfun.h"
#include "py/runtime.h"

MP_DECLARE_CONST_FUN_OBJ_2(bound_bind_obj);

// As mp_call_function_n_kw(), but straight into functions of the viper emitter.
static inline mp_obj_t port_call(mp_obj_t function, size_t n_args, const mp_obj_t *args) {
    if (MP_LIKELY(mp_obj_is_exact_type(function, &mp_type_fun_viper))) {
        mp_call_fun_t fun =
            (mp_call_fun_t)((const mp_obj_fun_bc_t *)MP_OBJ_TO_PTR(function))->bytecode;
        return fun(function, n_args, 0, args);
    }
    return mp_call_function_n_kw(function, n_args, 0, args);
}
#endif
