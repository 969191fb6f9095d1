// vmx.bind(function, context, ...): a callable that puts contexts before its arguments.
//
// A bound method at a lower price: for handlers of exits, looking the function up, copying the
// arguments to the heap and the checks of a general call would cost more than most handlers do.

#include "port/bound.h"

static mp_obj_t bound_call(mp_obj_t self_in, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    if (MP_UNLIKELY(n_args > BOUND_MOST || n_kw != 0)) {
        mp_raise_TypeError(MP_ERROR_TEXT("at most 8 arguments, none by keyword"));
    }
    return bound_call_n(MP_OBJ_TO_PTR(self_in), n_args, args);
}

static void bound_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    bound_t *self = MP_OBJ_TO_PTR(self_in);
    (void)kind;
    mp_printf(print, "<bound ");
    mp_obj_print_helper(print, self->function, PRINT_REPR);
    mp_printf(print, ">");
}

MP_DEFINE_CONST_OBJ_TYPE(
    bound_type, MP_QSTR_bound, MP_TYPE_FLAG_NONE, call, bound_call, print, bound_print);

static mp_obj_t bind(size_t n_args, const mp_obj_t *args) {
    size_t room = n_args - 1 < BOUND_FEW ? BOUND_FEW : n_args - 1;
    bound_t *self = mp_obj_malloc_var(bound_t, context, mp_obj_t, room, &bound_type);
    for (size_t i = 0; i < room; i++) {
        self->context[i] = MP_OBJ_NULL;
    }
    self->function = args[0];
    self->entry = NULL;
    if (mp_obj_is_exact_type(args[0], &mp_type_fun_viper)) {
        self->entry = (mp_call_fun_t)((const mp_obj_fun_bc_t *)MP_OBJ_TO_PTR(args[0]))->bytecode;
    }
    self->contexts = n_args - 1;
    for (size_t i = 1; i < n_args; i++) {
        self->context[i - 1] = args[i];
    }
    return MP_OBJ_FROM_PTR(self);
}
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(bound_bind_obj, 2, 1 + BOUND_MOST, bind);
