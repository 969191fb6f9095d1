// Module vmx: the VMX instructions, one function each, and the native type VCPU.
//
// Mechanism only. Which fields exist, what an exit means and how it is handled is
// up to Python (vmm/). Every VMfail raises VmxError(op, number, name); the
// names are those of SDM Vol. 3C, "VM-Instruction Error Numbers".

#include <string.h>

#include "py/runtime.h"
#include "py/objexcept.h"
#include "port/vmxops.h"
#include "port/vcpu.h"
#include "port/bochs27.h"
#include "port/bound.h"
#include "port/coalesce.h"
#include "port/value.h"

vmx_cpu_t vmx_cpu = {.guest = vmx_guest};

static MP_DEFINE_EXCEPTION(VmxError, Exception);

static const char *const error_names[] = {
    [1] = "VMCALL executed in VMX root operation",
    [2] = "VMCLEAR with invalid physical address",
    [3] = "VMCLEAR with VMXON pointer",
    [4] = "VMLAUNCH with non-clear VMCS",
    [5] = "VMRESUME with non-launched VMCS",
    [6] = "VMRESUME after VMXOFF",
    [7] = "VM entry with invalid control field(s)",
    [8] = "VM entry with invalid host-state field(s)",
    [9] = "VMPTRLD with invalid physical address",
    [10] = "VMPTRLD with VMXON pointer",
    [11] = "VMPTRLD with incorrect VMCS revision identifier",
    [12] = "VMREAD/VMWRITE from/to unsupported VMCS component",
    [13] = "VMWRITE to read-only VMCS component",
    [15] = "VMXON executed in VMX root operation",
    [16] = "VM entry with invalid executive-VMCS pointer",
    [17] = "VM entry with non-launched executive VMCS",
    [18] = "VM entry with executive-VMCS pointer not VMXON pointer",
    [19] = "VMCALL with non-clear VMCS",
    [20] = "VMCALL with invalid VM-exit control fields",
    [22] = "VMCALL with incorrect MSEG revision identifier",
    [23] = "VMXOFF under dual-monitor treatment of SMIs and SMM",
    [24] = "VMCALL with invalid SMM-monitor features",
    [25] = "VM entry with invalid VM-execution control fields in executive VMCS",
    [26] = "VM entry with events blocked by MOV SS",
    [28] = "Invalid operand to INVEPT/INVVPID",
};

static NORETURN void raise_error(const char *op, int number, const char *name) {
    mp_obj_t args[3] = {
        mp_obj_new_str(op, strlen(op)),
        MP_OBJ_NEW_SMALL_INT(number),
        mp_obj_new_str(name, strlen(name)),
    };
    nlr_raise(mp_obj_new_exception_args(&mp_type_VmxError, 3, args));
}

void vmx_raise(const char *op, vmx_result_t result) {
    if (result == VMX_FAIL_INVALID) {
        raise_error(op, 0, "VMfailInvalid: no current VMCS");
    }
    uint64_t number = 0;
    vmx_vmread(VM_INSTRUCTION_ERROR, &number);
    const char *name = number < MP_ARRAY_SIZE(error_names) ? error_names[number] : NULL;
    raise_error(op, number, name != NULL ? name : "unknown VM-instruction error");
}

void vmx_put_failed(void) {
    // The entry keeps host interrupts off from its last test of host_attention on.
    bochs27_release();
    __asm volatile("sti" ::: "memory");
    uint64_t number;
    vmx_raise("VMWRITE",
        vmx_vmread(VM_INSTRUCTION_ERROR, &number) == VMX_OK ? VMX_FAIL_VALID : VMX_FAIL_INVALID);
}

void vmx_check(const char *op, vmx_result_t result) {
    if (result != VMX_OK) {
        vmx_raise(op, result);
    }
}

void vmx_need_root(const char *op) {
    if (!vmx_cpu.vmxon) {
        raise_error(op, 0, "not in VMX operation (see vmx.on)");
    }
}

// on(hpa): VMXON with the 4 KiB region at hpa, whose first word is the VMCS revision.
// CR0, CR4 and IA32_FEATURE_CONTROL have been prepared by vmm/vtx/caps.py.
static mp_obj_t mod_on(mp_obj_t hpa_in) {
    if (vmx_cpu.vmxon) {
        raise_error("VMXON", 15, error_names[15]);
    }
    uint64_t hpa = mp_obj_get_int_truncated(hpa_in);
    vmx_result_t result = vmx_vmxon(hpa);
    if (result != VMX_OK) {
        raise_error("VMXON", 0, "VMfailInvalid: bad region or revision");
    }
    vmx_cpu.vmxon = true;
    vmx_cpu.xcr0 = vmx_all_xcr0();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_on_obj, mod_on);

// compacts() -> bool: whether XSAVEC and XSAVES are there and do what the SDM says. In VMX operation only.
static mp_obj_t mod_compacts(void) {
    vmx_need_root("XSAVEC");
    if (vmx_cpu.fpu_owner != NULL) {
        vmx_fpu_release(vmx_cpu.fpu_owner);
    }
    return mp_obj_new_bool(vmx_compaction_works());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_compacts_obj, mod_compacts);

// flaws(bits): which work-arounds entries need (bochs27.h).
static mp_obj_t mod_flaws(mp_obj_t bits) {
    vmx_cpu.flaws = mp_obj_get_int(bits);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_flaws_obj, mod_flaws);

// Leaves VMX operation; no VCPU is loaded any more. Also called before a soft reset,
// when the heap with the VCPU objects goes away.
void vmx_shutdown(void) {
    if (vmx_cpu.vmxon) {
        if (vmx_cpu.fpu_owner != NULL) {
            vmx_fpu_release(vmx_cpu.fpu_owner);
        }
        if (vmx_cpu.loaded != NULL) {
            vmx_vmclear(vmx_cpu.loaded->vmcs);
            vmx_cpu.loaded = NULL;
        }
        vmx_vmxoff();
        vmx_cpu.vmxon = false;
    }
}

static mp_obj_t mod_off(void) {
    vmx_need_root("VMXOFF");
    vmx_shutdown();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_off_obj, mod_off);

static mp_obj_t mod_clear(mp_obj_t hpa_in) {
    vmx_need_root("VMCLEAR");
    vmx_check("VMCLEAR", vmx_vmclear(mp_obj_get_int_truncated(hpa_in)));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_clear_obj, mod_clear);

// load(hpa): VMPTRLD. Whatever VCPU was loaded is put away first.
static mp_obj_t mod_load(mp_obj_t hpa_in) {
    vmx_need_root("VMPTRLD");
    vcpu_put_away();
    vmx_check("VMPTRLD", vmx_vmptrld(mp_obj_get_int_truncated(hpa_in)));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_load_obj, mod_load);

static mp_obj_t mod_read(mp_obj_t field) {
    vmx_need_root("VMREAD");
    uint64_t value;
    vmx_check("VMREAD", vmx_vmread(mp_obj_get_int_truncated(field), &value));
    return mp_obj_new_int_from_uint(value);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_read_obj, mod_read);

static mp_obj_t mod_write(mp_obj_t field, mp_obj_t value) {
    vmx_need_root("VMWRITE");
    vmx_check(
        "VMWRITE", vmx_vmwrite(mp_obj_get_int_truncated(field), mp_obj_get_int_truncated(value)));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_write_obj, mod_write);

// invept(type, eptp)
static mp_obj_t mod_invept(mp_obj_t type, mp_obj_t eptp) {
    vmx_need_root("INVEPT");
    uint64_t descriptor[2] = {mp_obj_get_int_truncated(eptp), 0};
    vmx_check("INVEPT", vmx_do_invept(mp_obj_get_int_truncated(type), descriptor));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_invept_obj, mod_invept);

// invvpid(type, vpid, gva)
static mp_obj_t mod_invvpid(mp_obj_t type, mp_obj_t vpid, mp_obj_t gva) {
    vmx_need_root("INVVPID");
    uint64_t descriptor[2] = {
        mp_obj_get_int_truncated(vpid) & 0xffff, mp_obj_get_int_truncated(gva)};
    vmx_check("INVVPID", vmx_do_invvpid(mp_obj_get_int_truncated(type), descriptor));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(mod_invvpid_obj, mod_invvpid);

static const mp_rom_map_elem_t vmx_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_vmx)},
    {MP_ROM_QSTR(MP_QSTR_VmxError), MP_ROM_PTR(&mp_type_VmxError)},
    {MP_ROM_QSTR(MP_QSTR_VCPU), MP_ROM_PTR(&vcpu_type)},
    {MP_ROM_QSTR(MP_QSTR_on), MP_ROM_PTR(&mod_on_obj)},
    {MP_ROM_QSTR(MP_QSTR_compacts), MP_ROM_PTR(&mod_compacts_obj)},
    {MP_ROM_QSTR(MP_QSTR_flaws), MP_ROM_PTR(&mod_flaws_obj)},
    {MP_ROM_QSTR(MP_QSTR_off), MP_ROM_PTR(&mod_off_obj)},
    {MP_ROM_QSTR(MP_QSTR_clear), MP_ROM_PTR(&mod_clear_obj)},
    {MP_ROM_QSTR(MP_QSTR_load), MP_ROM_PTR(&mod_load_obj)},
    {MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&mod_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&mod_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_vmread), MP_ROM_PTR(&vcpu_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_vmwrite), MP_ROM_PTR(&vcpu_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_tables), MP_ROM_PTR(&vcpu_tables_obj)},
    {MP_ROM_QSTR(MP_QSTR_names), MP_ROM_PTR(&vmx_names_obj)},
    {MP_ROM_QSTR(MP_QSTR_want), MP_ROM_PTR(&vcpu_want_obj)},
    {MP_ROM_QSTR(MP_QSTR_invept), MP_ROM_PTR(&mod_invept_obj)},
    {MP_ROM_QSTR(MP_QSTR_invvpid), MP_ROM_PTR(&mod_invvpid_obj)},
    {MP_ROM_QSTR(MP_QSTR_enter), MP_ROM_PTR(&vcpu_enter_obj)},
    {MP_ROM_QSTR(MP_QSTR_earliest), MP_ROM_PTR(&vcpu_earliest_obj)},
    {MP_ROM_QSTR(MP_QSTR_waits), MP_ROM_PTR(&coalesce_waits_obj)},
    {MP_ROM_QSTR(MP_QSTR_bind), MP_ROM_PTR(&bound_bind_obj)},
    {MP_ROM_QSTR(MP_QSTR_Value), MP_ROM_PTR(&value_type)},
    {MP_ROM_QSTR(MP_QSTR_numbers), MP_ROM_PTR(&value_numbers_obj)},
    {MP_ROM_QSTR(MP_QSTR_mitigate), MP_ROM_PTR(&vcpu_mitigate_obj)},
    {MP_ROM_QSTR(MP_QSTR_host_state), MP_ROM_PTR(&vcpu_host_state_obj)},
};
static MP_DEFINE_CONST_DICT(vmx_globals, vmx_globals_table);

const mp_obj_module_t mp_module_vmx = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&vmx_globals,
};
MP_REGISTER_MODULE(MP_QSTR_vmx, mp_module_vmx);
