// Type vmx.VCPU: one virtual CPU as Python sees it.
//
// Registers are attributes (vcpu.rax, vcpu.rip); viper code reads the frame through
// the buffer protocol (ptr32(vcpu)). Attributes that are no registers come from the
// object's own dict, then from a Python class given to the constructor, so that
// methods and properties are written in Python. One file, since registers and methods share one
// hash table of names.

#include <string.h>

#include "py/objarray.h"
#include "py/runtime.h"
#include "port/vmxops.h"
#include "port/vcpu.h"

_Static_assert(
    offsetof(vcpu_frame_t, guest_msrs) == 0xf80 && offsetof(vcpu_frame_t, xsave) == 0x1000,
    "vmm/vtx/frame.py says so");

// Entries for members, more than twice as many as are in use: a failed look-up (for a method) ends early.
#define MEMBERS (47)

#define OFFSET(member) (offsetof(vcpu_frame_t, member))

static vcpu_t *get(mp_obj_t self_in) {
    vcpu_t *self = MP_OBJ_TO_PTR(self_in);
    if (MP_UNLIKELY(!mp_obj_is_exact_type(self_in, &vcpu_type))) {
        self = MP_OBJ_TO_PTR(mp_obj_cast_to_native_base(self_in, MP_OBJ_FROM_PTR(&vcpu_type)));
    }
    if (MP_UNLIKELY(self == NULL || self->frame == NULL)) {
        mp_raise_TypeError(MP_ERROR_TEXT("VCPU is gone"));
    }
    return self;
}

// -- attributes

// Register names, their words in the frame, and what a store makes dirty.
typedef struct {
    uint16_t name;
    uint16_t offset;
    uint32_t dirty;
} register_t;

#define GPR(name, n)                                                                               \
    { MP_QSTR_##name, OFFSET(gpr) + 8 * (n), 0 }
#define WORD(name)                                                                                 \
    { MP_QSTR_##name, OFFSET(name), 0 }
static const register_t registers[] = {
    GPR(rax, 0),
    GPR(rcx, 1),
    GPR(rdx, 2),
    GPR(rbx, 3),
    {MP_QSTR_rip, OFFSET(rip), FRAME_DIRTY_RIP},
    WORD(qualification),
    WORD(reason),
    {MP_QSTR_rsp, OFFSET(gpr) + 8 * 4, FRAME_DIRTY_RSP},
    GPR(rbp, 5),
    GPR(rsi, 6),
    GPR(rdi, 7),
    GPR(r8, 8),
    GPR(r9, 9),
    GPR(r10, 10),
    GPR(r11, 11),
    GPR(r12, 12),
    GPR(r13, 13),
    GPR(r14, 14),
    GPR(r15, 15),
    {MP_QSTR_rflags, OFFSET(rflags), FRAME_DIRTY_RFLAGS},
    WORD(length),
    WORD(linear),
    WORD(gpa),
    WORD(intr_info),
    WORD(intr_error),
    WORD(entry_error),
    WORD(vectoring_info),
    WORD(vectoring_error),
    WORD(instr_info),
    WORD(deadline),
    WORD(exit_tsc),
    WORD(entry_tsc),
    WORD(guest_ticks),
    WORD(host_ticks),
    WORD(timer_shift),
    WORD(min_run),
    WORD(virtual_apic),
};

static uint64_t *word_of(vcpu_t *self, const register_t *r) {
    return (uint64_t *)((uint8_t *)self->frame + r->offset);
}

// Makes RIP current by doing an advance that is still due.
static void settle(vcpu_t *self) {
    if (self->frame->verdict & 1) {
        vcpu_need_loaded(self);
        vcpu_advance(self);
    }
}

static bool load_special(vcpu_t *self, qstr name, mp_obj_t *dest) {
    vcpu_frame_t *f = self->frame;
    if (name == MP_QSTR_cr2) {
        dest[0] = mp_obj_new_int_from_uint(vmx_cpu.loaded == self ? op_get_cr2() : f->cr2);
    } else if (name == MP_QSTR_xcr0) {
        dest[0] = mp_obj_new_int_from_uint(f->xcr0);
    } else if (name == MP_QSTR_pending) {
        dest[0] = MP_OBJ_NEW_SMALL_INT(f->pending);
    } else if (name == MP_QSTR___dict__) {
        dest[0] = self->members;
    } else {
        return false;
    }
    return true;
}

static NORETURN void raise_value(const char *name, uint64_t value) {
    mp_raise_msg_varg(&mp_type_ValueError, MP_ERROR_TEXT("%s cannot be 0x%x%08x here"), name,
        (unsigned)(value >> 32), (unsigned)value);
}

static bool store_special(vcpu_t *self, qstr name, mp_obj_t value) {
    vcpu_frame_t *f = self->frame;
    if (name == MP_QSTR_cr2) {
        f->cr2 = mp_obj_get_int_truncated(value);
        if (vmx_cpu.loaded == self) {
            op_set_cr2(f->cr2);
        }
    } else if (name == MP_QSTR_xcr0) {
        uint64_t xcr0 = mp_obj_get_int_truncated(value);
        if (!vmx_fpu_set_xcr0(f, xcr0)) {
            raise_value("XCR0", xcr0);
        }
    } else if (name == MP_QSTR_pending) {
        f->pending = mp_obj_get_int_truncated(value);
    } else {
        return false;
    }
    return true;
}

// A property or function of the class itself (the most frequent look-up), or MP_OBJ_NULL.
static mp_obj_t own_member(mp_obj_t cls, qstr name) {
    const mp_obj_type_t *type = MP_OBJ_TO_PTR(cls);
    if (!mp_obj_is_type(cls, &mp_type_type) || !MP_OBJ_TYPE_HAS_SLOT(type, locals_dict)) {
        return MP_OBJ_NULL;
    }
    mp_map_t *locals =
        mp_obj_dict_get_map(MP_OBJ_FROM_PTR(MP_OBJ_TYPE_GET_SLOT(type, locals_dict)));
    mp_map_elem_t *elem = mp_map_lookup(locals, MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP);
    if (elem == NULL || !mp_obj_is_obj(elem->value)) {
        return MP_OBJ_NULL;
    }
    const mp_obj_type_t *kind = mp_obj_get_type(elem->value);
    bool plain = kind == &mp_type_property || (kind->flags & MP_TYPE_FLAG_BINDS_SELF);
    return plain ? elem->value : MP_OBJ_NULL;
}

static void load_from_class(vcpu_t *self, mp_obj_t self_in, qstr name, mp_obj_t *dest) {
    mp_obj_t member[2] = {own_member(self->cls, name), MP_OBJ_NULL};
    if (member[0] == MP_OBJ_NULL) {
        mp_load_method_maybe(self->cls, name, member);
    }
    if (member[0] == MP_OBJ_NULL) {
        return;
    }
    if (mp_obj_is_type(member[0], &mp_type_property)) {
        dest[0] = mp_call_function_1(mp_obj_property_get(member[0])[0], self_in);
    } else if (member[1] == MP_OBJ_NULL && mp_obj_is_obj(member[0]) &&
               (mp_obj_get_type(member[0])->flags & MP_TYPE_FLAG_BINDS_SELF)) {
        dest[0] = member[0];
        dest[1] = self_in;
    } else {
        dest[0] = member[0];
        dest[1] = member[1];
    }
}

static bool store_to_class(vcpu_t *self, mp_obj_t self_in, qstr name, mp_obj_t value) {
    mp_obj_t member[2] = {MP_OBJ_NULL, MP_OBJ_NULL};
    mp_load_method_maybe(self->cls, name, member);
    if (member[0] == MP_OBJ_NULL || !mp_obj_is_type(member[0], &mp_type_property)) {
        return false;
    }
    mp_obj_t setter = mp_obj_property_get(member[0])[1];
    if (setter == mp_const_none) {
        mp_raise_msg_varg(&mp_type_AttributeError, MP_ERROR_TEXT("'%q' is read-only"), name);
    }
    mp_call_function_2(setter, self_in, value);
    return true;
}

static void vcpu_attr(
    vcpu_t *self, mp_obj_t self_in, qstr name, const register_t *r, mp_obj_t *dest) {
    mp_map_t *members = mp_obj_dict_get_map(self->members);
    if (dest[0] == MP_OBJ_NULL) {
        if (r != NULL) {
            if (r->dirty == FRAME_DIRTY_RIP) {
                settle(self);
            }
            dest[0] = mp_obj_new_int_from_uint(*word_of(self, r));
            return;
        }
        mp_map_elem_t *elem = mp_map_lookup(members, MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP);
        if (elem != NULL) {
            dest[0] = elem->value;
        } else if (!load_special(self, name, dest)) {
            load_from_class(self, self_in, name, dest);
        }
    } else if (dest[1] != MP_OBJ_NULL) {
        if (r != NULL) {
            if (r->dirty == FRAME_DIRTY_RIP) {
                settle(self);
            }
            uint64_t value = mp_obj_get_int_truncated(dest[1]);
            if (name == MP_QSTR_reason && value >= VCPU_REASONS) { // the exit loop counts by it
                raise_value("reason", value);
            }
            *word_of(self, r) = value;
            self->frame->dirty |= r->dirty;
        } else if (!store_special(self, name, dest[1]) &&
                   !store_to_class(self, self_in, name, dest[1])) {
            mp_map_lookup(members, MP_OBJ_NEW_QSTR(name), MP_MAP_LOOKUP_ADD_IF_NOT_FOUND)->value =
                dest[1];
        }
        dest[0] = MP_OBJ_NULL;
    }
}

// -- methods for the Python class

// vcpu.read(FIELD), vcpu.write(FIELD, value): VMREAD and VMWRITE on this vCPU's VMCS.
// Fields that the frame caches (RIP, RSP, RFLAGS) are to be used by their names.
static mp_obj_t vcpu_read(mp_obj_t self_in, mp_obj_t field) {
    vcpu_need_loaded(get(self_in));
    uint64_t value;
    vmx_check("VMREAD", vmx_vmread(mp_obj_get_int_truncated(field), &value));
    return mp_obj_new_int_from_uint(value);
}
MP_DEFINE_CONST_FUN_OBJ_2(vcpu_read_obj, vcpu_read); // also vmx.vmread, as vmwrite

// vmx.tables(vcpu) -> CR3's table with the number of levels in its low bits, where paging is that of IA-32e mode with
// NXE; else 0. CR4.LA57 in the VMCS is the one that the guest sees.
static mp_obj_t vcpu_tables(mp_obj_t self_in) {
    vcpu_need_loaded(get(self_in));
    uint64_t efer, cr4, cr3;
    vmx_result_t result = vmx_vmread(GUEST_IA32_EFER, &efer);
    result = result == VMX_OK ? vmx_vmread(GUEST_CR4, &cr4) : result;
    result = result == VMX_OK ? vmx_vmread(GUEST_CR3, &cr3) : result;
    if (MP_UNLIKELY(result != VMX_OK)) {
        vmx_raise("VMREAD", result);
    }
    if ((efer & (EFER_LMA | EFER_NXE)) != (EFER_LMA | EFER_NXE)) {
        return MP_OBJ_NEW_SMALL_INT(0);
    }
    return MP_OBJ_NEW_SMALL_INT((cr3 & PTE_ADDRESS) | (cr4 & CR4_LA57 ? 5 : 4));
}
MP_DEFINE_CONST_FUN_OBJ_1(vcpu_tables_obj, vcpu_tables);

static mp_obj_t vcpu_write(mp_obj_t self_in, mp_obj_t field, mp_obj_t value) {
    vcpu_need_loaded(get(self_in));
    vmx_check(
        "VMWRITE", vmx_vmwrite(mp_obj_get_int_truncated(field), mp_obj_get_int_truncated(value)));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(
    vcpu_write_obj, vcpu_write); // also vmx.vmwrite, for viper: no look-up, no bound method

// vcpu.event(info, error=0, length=0): the event that the next entry injects
// (SDM Vol. 3C, "VM-Entry Controls for Event Injection"). info 0 cancels it.
static mp_obj_t vcpu_event(size_t n_args, const mp_obj_t *args) {
    vcpu_frame_t *f = get(args[0])->frame;
    f->entry_info = mp_obj_get_int_truncated(args[1]);
    f->entry_error = n_args > 2 ? mp_obj_get_int_truncated(args[2]) : 0;
    f->entry_length = n_args > 3 ? mp_obj_get_int_truncated(args[3]) : 0;
    f->dirty |= FRAME_DIRTY_ENTRY;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(vcpu_event_obj, 2, 4, vcpu_event);

// vcpu.injecting() -> the interruption information that the next entry injects, or 0.
static mp_obj_t vcpu_injecting(mp_obj_t self_in) {
    vcpu_frame_t *f = get(self_in)->frame;
    return MP_OBJ_NEW_SMALL_INT(
        f->dirty & FRAME_DIRTY_ENTRY && f->entry_info & INFO_VALID ? f->entry_info : 0);
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_injecting_obj, vcpu_injecting);

// vcpu.msr(index[, value]): one of the MSRs that follow the vCPU (frame->msr).
static mp_obj_t vcpu_msr(size_t n_args, const mp_obj_t *args) {
    vcpu_t *self = get(args[0]);
    uint32_t index = mp_obj_get_int_truncated(args[1]);
    bool live = vmx_cpu.loaded == self;
    for (vcpu_msr_t *m = self->frame->msr; m < self->frame->msr + VCPU_MSRS && m->index != 0; m++) {
        if (m->index == index) {
            if (n_args == 2) {
                return mp_obj_new_int_from_uint(live ? op_rdmsr(index) : m->value);
            }
            uint64_t value = mp_obj_get_int_truncated(args[2]);
            vcpu_need_loaded(self);
            op_wrmsr(index,
                value); // a value that the CPU refuses raises here, not when the vCPU is loaded
            m->value = value;
            return mp_const_none;
        }
    }
    mp_raise_msg_varg(
        &mp_type_KeyError, MP_ERROR_TEXT("MSR 0x%x does not follow the vCPU"), (unsigned)index);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(vcpu_msr_obj, 2, 3, vcpu_msr);

// vcpu.fpu() -> the XSAVE area (or FXSAVE image) as a writable memoryview.
static mp_obj_t vcpu_fpu(mp_obj_t self_in) {
    vcpu_t *self = get(self_in);
    vmx_fpu_release(self->frame);
    return mp_obj_new_memoryview(
        'B' | MP_OBJ_ARRAY_TYPECODE_FLAG_RW, sizeof(self->frame->xsave), self->frame->xsave);
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_fpu_obj, vcpu_fpu);

// vcpu.debug() -> memoryview of DR0-DR3 and DR6 in the frame. It puts the vCPU away, so that reads are
// current and writes take effect.
static mp_obj_t vcpu_debug(mp_obj_t self_in) {
    vcpu_t *self = get(self_in);
    if (vmx_cpu.loaded == self) {
        vcpu_put_away();
    }
    return mp_obj_new_memoryview('Q' | MP_OBJ_ARRAY_TYPECODE_FLAG_RW, 5, self->frame->dr);
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_debug_obj, vcpu_debug);

// vcpu.dr(n): one of DR0 to DR3.
static mp_obj_t vcpu_dr(mp_obj_t self_in, mp_obj_t n_in) {
    vcpu_t *self = get(self_in);
    mp_int_t n = mp_obj_get_int(n_in);
    if (n < 0 || n > 3) {
        mp_raise_ValueError(MP_ERROR_TEXT("DR0 to DR3"));
    }
    uint64_t value = self->frame->dr[n];
    if (vmx_cpu.loaded == self) {
        value = n == 0   ? op_get_dr0()
                : n == 1 ? op_get_dr1()
                : n == 2 ? op_get_dr2()
                         : op_get_dr3();
    }
    return mp_obj_new_int_from_uint(value);
}
static MP_DEFINE_CONST_FUN_OBJ_2(vcpu_dr_obj, vcpu_dr);

// vcpu.clear(): VMCLEAR; the next entry is a VMLAUNCH. To be called before the memory of the frame or
// the VMCS is freed.
static mp_obj_t vcpu_clear(mp_obj_t self_in) {
    vcpu_t *self = get(self_in);
    vmx_need_root("VMCLEAR");
    if (vmx_cpu.loaded == self) {
        vcpu_put_away();
    }
    vmx_fpu_release(self->frame);
    vmx_check("VMCLEAR", vmx_vmclear(self->vmcs));
    self->frame->launched = 0;
    self->frame->host_rsp = 0;
    if (vmx_cpu.ran == self->frame) {
        vmx_cpu.ran = NULL; // another guest may get its frame
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_clear_obj, vcpu_clear);

// vcpu.retire(): every later use of the object raises; its memory can be freed.
static mp_obj_t vcpu_retire(mp_obj_t self_in) {
    vcpu_clear(self_in);
    get(self_in)->frame = NULL;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_retire_obj, vcpu_retire);

// vcpu.left(): the exit loop has ended; time from now on is not charged to the guest.
static mp_obj_t vcpu_left(mp_obj_t self_in) {
    vcpu_count_ticks(get(self_in)->frame, op_rdtsc());
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_left_obj, vcpu_left);

// vcpu.advance(): RIP moves past the instruction at once, by frame->length.
static mp_obj_t advance_now(mp_obj_t self_in) {
    vcpu_t *self = get(self_in);
    vcpu_need_loaded(self);
    vcpu_advance(self);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(vcpu_advance_obj, advance_now);

// vcpu.want(bits): reads words of the frame now that an exit reads only for some reasons (WANT_... of
// vmm/vtx/frame.py).
static mp_obj_t want(mp_obj_t self_in, mp_obj_t bits) {
    vcpu_t *self = get(self_in);
    vcpu_need_loaded(self);
    vcpu_want(self, mp_obj_get_int_truncated(bits));
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(vcpu_want_obj, want); // also vmx.want

static mp_obj_t *table_items(mp_obj_t table) {
    size_t len;
    mp_obj_t *items;
    if (!mp_obj_is_type(table, &mp_type_list)) {
        mp_raise_TypeError(MP_ERROR_TEXT("table must be a list"));
    }
    mp_obj_get_array(table, &len, &items);
    if (len != VCPU_SLOTS) {
        mp_raise_msg_varg(
            &mp_type_ValueError, MP_ERROR_TEXT("table must have %d slots"), VCPU_SLOTS);
    }
    return items;
}

// vcpu.use(table): exits are dispatched by this list from now on.
static mp_obj_t vcpu_use(mp_obj_t self_in, mp_obj_t table) {
    vcpu_t *self = get(self_in);
    self->table = table_items(table);
    self->table_obj = table;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(vcpu_use_obj, vcpu_use);

static const mp_rom_map_elem_t vcpu_locals_table[] = {
    {MP_ROM_QSTR(MP_QSTR_left), MP_ROM_PTR(&vcpu_left_obj)},
    {MP_ROM_QSTR(MP_QSTR_advance), MP_ROM_PTR(&vcpu_advance_obj)},
    {MP_ROM_QSTR(MP_QSTR_want), MP_ROM_PTR(&vcpu_want_obj)},
    {MP_ROM_QSTR(MP_QSTR_use), MP_ROM_PTR(&vcpu_use_obj)},
    {MP_ROM_QSTR(MP_QSTR_read), MP_ROM_PTR(&vcpu_read_obj)},
    {MP_ROM_QSTR(MP_QSTR_write), MP_ROM_PTR(&vcpu_write_obj)},
    {MP_ROM_QSTR(MP_QSTR_event), MP_ROM_PTR(&vcpu_event_obj)},
    {MP_ROM_QSTR(MP_QSTR_injecting), MP_ROM_PTR(&vcpu_injecting_obj)},
    {MP_ROM_QSTR(MP_QSTR_msr), MP_ROM_PTR(&vcpu_msr_obj)},
    {MP_ROM_QSTR(MP_QSTR_fpu), MP_ROM_PTR(&vcpu_fpu_obj)},
    {MP_ROM_QSTR(MP_QSTR_debug), MP_ROM_PTR(&vcpu_debug_obj)},
    {MP_ROM_QSTR(MP_QSTR_dr), MP_ROM_PTR(&vcpu_dr_obj)},
    {MP_ROM_QSTR(MP_QSTR_clear), MP_ROM_PTR(&vcpu_clear_obj)},
    {MP_ROM_QSTR(MP_QSTR_retire), MP_ROM_PTR(&vcpu_retire_obj)},
};

#define REGISTERS MP_ARRAY_SIZE(registers)
#define NAMES     (REGISTERS + MP_ARRAY_SIZE(vcpu_locals_table))
#define HASH_BITS (8)
#define HASH      (1 << HASH_BITS)
_Static_assert(4 * NAMES <= HASH, "names are found at once, as a rule");

// A multiplicative hash: qstrs of names that were created one after the other are consecutive, and would fill
// consecutive slots.
static size_t slot_of_name(qstr name) {
    return (uint32_t)name * 2654435769u >> (32 - HASH_BITS);
}

static qstr name_of(size_t i) {
    return i < REGISTERS ? registers[i].name
                         : MP_OBJ_QSTR_VALUE(vcpu_locals_table[i - REGISTERS].key);
}

// The index of a register, or REGISTERS and that of a method, or NAMES. Most look-ups are for neither: vcpu.vm.
static size_t find_name(qstr name) {
    static uint8_t slots[HASH]; // 1 + index
    static bool filled;
    if (MP_UNLIKELY(!filled)) {
        for (size_t i = 0; i < NAMES; i++) {
            size_t at = slot_of_name(name_of(i));
            while (slots[at] != 0) {
                at = (at + 1) % HASH;
            }
            slots[at] = 1 + i;
        }
        filled = true;
    }
    for (size_t at = slot_of_name(name); slots[at] != 0; at = (at + 1) % HASH) {
        if (name_of(slots[at] - 1) == name) {
            return slots[at] - 1;
        }
    }
    return NAMES;
}

static void vcpu_attr_or_method(mp_obj_t self_in, qstr name, mp_obj_t *dest) {
    vcpu_t *self = get(self_in);
    size_t i = find_name(name);
    if (dest[0] == MP_OBJ_NULL && i >= REGISTERS && i < NAMES) {
        dest[0] = MP_OBJ_FROM_PTR(vcpu_locals_table[i - REGISTERS].value);
        dest[1] = self_in;
        return;
    }
    vcpu_attr(self, self_in, name, i < REGISTERS ? &registers[i] : NULL, dest);
}

// vmx.names(vcpu) -> list of its names: registers, methods of C, attributes that Python has set.
static mp_obj_t mod_names(mp_obj_t self_in) {
    vcpu_t *self = get(self_in);
    mp_obj_t list = mp_obj_new_list(0, NULL);
    for (size_t i = 0; i < NAMES; i++) {
        mp_obj_list_append(list, MP_OBJ_NEW_QSTR(name_of(i)));
    }
    mp_map_t *members = mp_obj_dict_get_map(self->members);
    for (size_t i = 0; i < members->alloc; i++) {
        if (mp_map_slot_is_filled(members, i)) {
            mp_obj_list_append(list, members->table[i].key);
        }
    }
    return list;
}
MP_DEFINE_CONST_FUN_OBJ_1(vmx_names_obj, mod_names);

// VCPU(frame_hpa, vmcs_hpa, table, cls): the caller has cleared the frame's pages.
static mp_obj_t vcpu_make_new(
    const mp_obj_type_t *type, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    mp_arg_check_num(n_args, n_kw, 4, 4, false);
    mp_obj_t *items = table_items(args[2]);
    vcpu_t *self = mp_obj_malloc(vcpu_t, type);
    self->frame = (vcpu_frame_t *)mp_obj_get_int_truncated(args[0]);
    self->vmcs = mp_obj_get_int_truncated(args[1]);
    self->table = items;
    self->table_obj = args[2];
    self->cls = args[3];
    self->members = mp_obj_new_dict(MEMBERS);
    return MP_OBJ_FROM_PTR(self);
}

static mp_int_t vcpu_get_buffer(mp_obj_t self_in, mp_buffer_info_t *info, mp_uint_t flags) {
    (void)flags;
    info->buf = ((vcpu_t *)MP_OBJ_TO_PTR(self_in))->frame;
    info->len = offsetof(vcpu_frame_t, xsave);
    info->typecode = 'B';
    return 0;
}

// By its class's __repr__; a retired one has no frame to read.
static void vcpu_print(const mp_print_t *print, mp_obj_t self_in, mp_print_kind_t kind) {
    (void)kind;
    mp_obj_t text[2] = {MP_OBJ_NULL, MP_OBJ_NULL};
    vcpu_t *self = MP_OBJ_TO_PTR(self_in);
    if (self->frame != NULL) {
        load_from_class(self, self_in, MP_QSTR___repr__, text);
    }
    if (text[0] == MP_OBJ_NULL) {
        mp_print_str(print, "<VCPU>");
    } else {
        mp_obj_print_helper(print, mp_call_method_n_kw(0, 0, text), PRINT_STR);
    }
}

MP_DEFINE_CONST_OBJ_TYPE(vcpu_type, MP_QSTR_VCPU, MP_TYPE_FLAG_NONE, make_new, vcpu_make_new, print,
    vcpu_print, attr, vcpu_attr_or_method, buffer, vcpu_get_buffer);
