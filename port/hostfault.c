// cpu.HostFault(name, vector, error_code, rip, address): an exception of this CPU, raised in the Python code that
// caused it. The arguments are attributes, too; address: CR2 of a #PF, else 0.
#include "py/objexcept.h"
#include "py/runtime.h"
#include "port/hostfault.h"
#include "port/trap.h"

static void host_fault_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    mp_obj_exception_t *self = MP_OBJ_TO_PTR(self_in);
    mp_print_kind_t form = kind & ~PRINT_EXC_SUBCLASS;
    if (self->args->len != 5 || (form != PRINT_EXC && form != PRINT_STR)) {
        mp_obj_exception_print(print, self_in, kind);
        return;
    }
    if (form == PRINT_EXC) {
        mp_printf(print, "%q: ", self->base.type->name);
    }
    mp_obj_t *args = self->args->items;
    mp_printf(print, "%s error_code=0x%lx rip=0x%lx address=0x%lx", mp_obj_str_get_str(args[0]),
        mp_obj_get_int_truncated(args[2]), mp_obj_get_int_truncated(args[3]),
        mp_obj_get_int_truncated(args[4]));
}

static void host_fault_attr(mp_obj_t self_in, qstr attr, mp_obj_t *dest) {
    static const qstr names[] = {
        MP_QSTR_name, MP_QSTR_vector, MP_QSTR_error_code, MP_QSTR_rip, MP_QSTR_address};
    mp_obj_exception_t *self = MP_OBJ_TO_PTR(self_in);
    if (dest[0] == MP_OBJ_NULL && self->args->len == MP_ARRAY_SIZE(names)) {
        for (unsigned i = 0; i < MP_ARRAY_SIZE(names); i++) {
            if (attr == names[i]) {
                dest[0] = self->args->items[i];
                return;
            }
        }
    }
    mp_obj_exception_attr(self_in, attr, dest);
}

MP_DEFINE_CONST_OBJ_TYPE(hostfault_type, MP_QSTR_HostFault, MP_TYPE_FLAG_NONE, make_new,
    mp_obj_exception_make_new, print, host_fault_print, attr, host_fault_attr, parent,
    &mp_type_Exception);

void hostfault_raise(uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t address) {
    const char *name = trap_name(vector);
    mp_obj_t args[5] = {
        mp_obj_new_str_from_cstr(name),
        MP_OBJ_NEW_SMALL_INT(vector),
        mp_obj_new_int_from_uint(error_code),
        mp_obj_new_int_from_uint(rip),
        mp_obj_new_int_from_uint(address),
    };
    nlr_raise(mp_obj_exception_make_new(&hostfault_type, 5, 0, args));
}
