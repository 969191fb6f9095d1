// The host's side of entries and exits: the host-state area, and the routines of vmx.S that enter and leave guests.

#include "py/runtime.h"
#include "port/vcpu.h"
#include "port/segments.h"

// mitigate(bits): what entries and exits do from now on (VCPU_MITIGATE_...). To be called before a vCPU is prepared:
// host_state() returns the exit routine.
static mp_obj_t vcpu_mitigate(mp_obj_t bits_in) {
    uint32_t bits = mp_obj_get_int(bits_in);
    vmx_cpu.mitigations = bits;
    vmx_cpu.guest = bits & VCPU_MITIGATE_VERW ? vmx_guest_verw : vmx_guest;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(vcpu_mitigate_obj, vcpu_mitigate);

static void (*exit_routine(void))(void) {
    uint32_t bits = vmx_cpu.mitigations;
    if (bits & VCPU_MITIGATE_FILL_RSB) {
        return vmx_exit_fill;
    }
    if (bits & VCPU_MITIGATE_CALL) {
        return vmx_exit_call;
    }
    return bits & VCPU_MITIGATE_REGISTERS ? vmx_exit_clear : vmx_exit;
}

// host_state() -> (rip, cs, ds, tr, gdt base, idt base, tr base) for the host-state area.
static mp_obj_t vcpu_host_state(void) {
    mp_obj_t items[] = {
        mp_obj_new_int_from_uint((uintptr_t)exit_routine()),
        MP_OBJ_NEW_SMALL_INT(HOST_CS),
        MP_OBJ_NEW_SMALL_INT(HOST_DS),
        MP_OBJ_NEW_SMALL_INT(HOST_TR),
        mp_obj_new_int_from_uint((uintptr_t)gdt),
        mp_obj_new_int_from_uint((uintptr_t)idt),
        mp_obj_new_int_from_uint((uintptr_t)&tss),
    };
    return mp_obj_new_tuple(MP_ARRAY_SIZE(items), items);
}
MP_DEFINE_CONST_FUN_OBJ_0(vcpu_host_state_obj, vcpu_host_state);
