// vmx.bind(function, context): a callable that puts `context` before its arguments.
//
// What a bound method is, without its price: handlers of exits are called so often that
// looking the function up again, a copy of the arguments in memory of the heap and the
// checks of a general call cost more than most handlers do.

#include "py/objfun.h"
#include "py/runtime.h"
#include "port/bound.h"

#define MOST_ARGS (4)

typedef struct {
    mp_obj_base_t base;
    mp_obj_t function;
    mp_obj_t context;
} bound_t;

static mp_obj_t bound_call(mp_obj_t self_in, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    bound_t *self = MP_OBJ_TO_PTR(self_in);
    mp_obj_t all[1 + MOST_ARGS];
    if (MP_UNLIKELY(n_args > MOST_ARGS || n_kw != 0)) {
        mp_raise_TypeError(MP_ERROR_TEXT("at most 4 arguments, none by keyword"));
    }
    all[0] = self->context;
    for (size_t i = 0; i < n_args; i++) {
        all[1 + i] = args[i];
    }
    return port_call(self->function, 1 + n_args, all);
}

static void bound_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    bound_t *self = MP_OBJ_TO_PTR(self_in);
    (void)kind;
    mp_printf(print, "<bound ");
    mp_obj_print_helper(print, self->function, PRINT_REPR);
    mp_printf(print, ">");
}

static MP_DEFINE_CONST_OBJ_TYPE(
    bound_type, MP_QSTR_bound, MP_TYPE_FLAG_NONE, call, bound_call, print, bound_print);

static mp_obj_t bind(mp_obj_t function, mp_obj_t context) {
    bound_t *self = mp_obj_malloc(bound_t, &bound_type);
    self->function = function;
    self->context = context;
    return MP_OBJ_FROM_PTR(self);
}
MP_DEFINE_CONST_FUN_OBJ_2(bound_bind_obj, bind);
