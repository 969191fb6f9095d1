// The cpu module: instructions for Python. Its other functions are in the files of their subjects
// (cpu_..._obj below).
//
// Values below 2**62 are small ints and allocate nothing; larger ones (some MSRs) are big ints.
#include <string.h>
#include "py/runtime.h"
#include "port/budget.h"
#include "port/exec.h"
#include "port/idle.h"
#include "port/modcpu.h"
#include "port/preempt.h"
#include "port/random.h"
#include "port/softreset.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/uart.h"
#include "port/watch.h"
#include "port/x86.h"

extern const mp_obj_type_t hostfault_type;
MP_DECLARE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_history_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_terminal_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_completer_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_errors_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_idle_hook_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_soft_reset_hook_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_exit_resets_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_mailbox_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_wanted_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_idle_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_reading_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_watch_obj);
MP_DECLARE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_guard_obj);
MP_DECLARE_CONST_FUN_OBJ_VAR_BETWEEN(cpu_attempt_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_limited_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_shield_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_preempt_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_hold_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_allocated_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_heap_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_heap_free_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_machine_check_banks_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_machine_checks_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_refused_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_add_up_obj);
MP_DECLARE_CONST_FUN_OBJ_0(cpu_collect_at_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_uncounted_obj);
MP_DECLARE_CONST_FUN_OBJ_2(cpu_line_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_insl_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_outsl_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_protect_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_unprotect_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_written_obj);
MP_DECLARE_CONST_FUN_OBJ_3(cpu_put_obj);
MP_DECLARE_CONST_FUN_OBJ_2(cpu_wrote_obj);
MP_DECLARE_CONST_FUN_OBJ_2(cpu_room_obj);

void cpu_module_init(void) {
    budget_init();
    watch_init();
    idle_init();
    softreset_init();
    MP_STATE_PORT(preempt_hook) = mp_const_none;
    preempt_at = preempt_holds = 0;
}

void timer_expired(timer_slot_t slot) {
    if (slot == TIMER_WATCH) {
        watch_expired();
    } else if (slot == TIMER_STUCK) {
        idle_stuck();
    }
}

static mp_obj_t mod_cpuid(size_t n_args, const mp_obj_t *args) {
    cpuid_t r = cpuid(
        mp_obj_get_int_truncated(args[0]), n_args > 1 ? mp_obj_get_int_truncated(args[1]) : 0);
    mp_obj_t items[4] = {MP_OBJ_NEW_SMALL_INT(r.eax), MP_OBJ_NEW_SMALL_INT(r.ebx),
        MP_OBJ_NEW_SMALL_INT(r.ecx), MP_OBJ_NEW_SMALL_INT(r.edx)};
    return mp_obj_new_tuple(4, items);
}
static MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(mod_cpuid_obj, 1, 2, mod_cpuid);

static mp_obj_t mod_rdmsr(mp_obj_t msr) {
    return mp_obj_new_int_from_uint(rdmsr(mp_obj_get_int_truncated(msr)));
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_rdmsr_obj, mod_rdmsr);

static mp_obj_t mod_wrmsr(mp_obj_t msr, mp_obj_t value) {
    wrmsr(mp_obj_get_int_truncated(msr), mp_obj_get_int_truncated(value));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_wrmsr_obj, mod_wrmsr);

static mp_obj_t mod_cr(mp_obj_t n) {
    switch (mp_obj_get_int(n)) {
        case 0:
            return mp_obj_new_int_from_uint(read_cr0());
        case 2:
            return mp_obj_new_int_from_uint(read_cr2());
        case 3:
            return mp_obj_new_int_from_uint(read_cr3());
        case 4:
            return mp_obj_new_int_from_uint(read_cr4());
        case 8:
            return mp_obj_new_int_from_uint(read_cr8());
        default:
            mp_raise_ValueError(MP_ERROR_TEXT("no such control register"));
    }
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_cr_obj, mod_cr);

static mp_obj_t mod_set_cr(mp_obj_t n, mp_obj_t value_in) {
    uint64_t value = mp_obj_get_int_truncated(value_in);
    switch (mp_obj_get_int(n)) {
        case 0:
            write_cr0(value);
            break;
        case 2:
            write_cr2(value);
            break;
        case 3:
            write_cr3(value);
            break;
        case 4:
            write_cr4(value);
            break;
        case 8:
            write_cr8(value);
            break;
        default:
            mp_raise_ValueError(MP_ERROR_TEXT("no such control register"));
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_set_cr_obj, mod_set_cr);

static mp_obj_t mod_xcr0(void) {
    uint32_t low, high;
    __asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return mp_obj_new_int_from_uint((uint64_t)high << 32 | low);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_xcr0_obj, mod_xcr0);

static mp_obj_t mod_set_xcr0(mp_obj_t value_in) {
    uint64_t value = mp_obj_get_int_truncated(value_in);
    __asm volatile("xsetbv"
                   :
                   : "c"(0), "a"((uint32_t)value), "d"((uint32_t)(value >> 32))
                   : "memory");
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_set_xcr0_obj, mod_set_xcr0);

#define DEFINE_IN(name)                                                                            \
    static mp_obj_t mod_##name(mp_obj_t port) {                                                    \
        return MP_OBJ_NEW_SMALL_INT(name(mp_obj_get_int(port)));                                   \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_1(mod_##name##_obj, mod_##name)

#define DEFINE_OUT(name)                                                                           \
    static mp_obj_t mod_##name(mp_obj_t port, mp_obj_t value) {                                    \
        name(mp_obj_get_int(port), mp_obj_get_int_truncated(value));                               \
        return mp_const_none;                                                                      \
    }                                                                                              \
    static MP_DEFINE_CONST_FUN_OBJ_2(mod_##name##_obj, mod_##name)

DEFINE_IN(inb);
DEFINE_IN(inw);
DEFINE_IN(inl);
DEFINE_OUT(outb);
DEFINE_OUT(outw);
DEFINE_OUT(outl);

static mp_obj_t mod_rdtsc(void) {
    return mp_obj_new_int_from_uint(rdtsc());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_rdtsc_obj, mod_rdtsc);

// random() -> 32 bits, of which no object is made.
static mp_obj_t mod_random(void) {
    return MP_OBJ_NEW_SMALL_INT(pcanel_random() >> 32);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_random_obj, mod_random);

// alarm(tsc): a host interrupt at this TSC, with no other effect; 0 disarms it.
static mp_obj_t mod_alarm(mp_obj_t tsc) {
    timer_arm(mp_obj_get_int_truncated(tsc));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_alarm_obj, mod_alarm);

// look_at(tsc): the drivers poll their devices at this TSC, as after a host interrupt, or earlier if an earlier TSC is
// set.
static mp_obj_t mod_look_at(mp_obj_t tsc_in) {
    uint64_t tsc = mp_obj_get_int_truncated(tsc_in);
    uint64_t before = timer_get(TIMER_DRIVER);
    if (before == 0 || tsc < before) {
        timer_set(TIMER_DRIVER, tsc);
    }
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_look_at_obj, mod_look_at);

// zero(hpa, size): clears memory in pieces, between which guests of higher priority may run.
static mp_obj_t mod_zero(mp_obj_t hpa, mp_obj_t size) {
    byte *at = (byte *)mp_obj_get_int_truncated(hpa);
    size_t left = mp_obj_get_int(size);
    for (; left > MEMORY_PIECE; left -= MEMORY_PIECE, at += MEMORY_PIECE) {
        memset(at, 0, MEMORY_PIECE);
        preempt_look();
    }
    memset(at, 0, left);
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_zero_obj, mod_zero);

// look(): a preemption point: guests of higher priority that are due run now.
static mp_obj_t mod_look(void) {
    preempt_look();
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_look_obj, mod_look);

// due() -> whether look() would run one.
static mp_obj_t mod_due(void) {
    return mp_obj_new_bool(preempt_due());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_due_obj, mod_due);

static mp_obj_t mod_copy(mp_obj_t to_hpa, mp_obj_t from_hpa, mp_obj_t size) {
    memmove((void *)mp_obj_get_int_truncated(to_hpa), (void *)mp_obj_get_int_truncated(from_hpa),
        mp_obj_get_int(size));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(mod_copy_obj, mod_copy);

// counters() -> dict: unclaimed interrupts, characters lost on COM1, bytes of the executable region
// in use; garbage collections, how often guests preempted one, and the longest time that a due guest
// waited for one (TSC ticks).
static mp_obj_t mod_counters(void) {
    mp_obj_t dict = mp_obj_new_dict(6);
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_unclaimed_interrupts),
        mp_obj_new_int_from_uint(trap_unclaimed()));
    mp_obj_dict_store(
        dict, MP_OBJ_NEW_QSTR(MP_QSTR_com1_overruns), mp_obj_new_int_from_uint(uart_overruns(0)));
    mp_obj_dict_store(
        dict, MP_OBJ_NEW_QSTR(MP_QSTR_exec_used), mp_obj_new_int_from_uint(exec_used()));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_collections),
        mp_obj_new_int_from_uint(collect_statistics.count));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_collections_interrupted),
        mp_obj_new_int_from_uint(collect_statistics.yields));
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_collections_latest),
        mp_obj_new_int_from_uint(collect_statistics.latest));
    return dict;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_counters_obj, mod_counters);

void mp_module_cpu_attr(mp_obj_t self, qstr attr, mp_obj_t *dest);
void mp_module_cpu_attr(mp_obj_t self, qstr attr, mp_obj_t *dest) {
    (void)self;
    if (attr == MP_QSTR_tsc_hz && dest[0] == MP_OBJ_NULL) {
        dest[0] = mp_obj_new_int_from_uint(tsc_hz);
    }
}

// nmis() -> the number of NMIs that the monitor has taken.
static mp_obj_t mod_nmis(void) {
    return MP_OBJ_NEW_SMALL_INT(trap_nmis());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_nmis_obj, mod_nmis);

// take_nmi(): handles the NMI that made a guest exit. Its IRET ends the blocking of further NMIs.
static mp_obj_t mod_take_nmi(void) {
    __asm volatile("int $2" ::: "memory");
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_take_nmi_obj, mod_take_nmi);

// self_of(method) -> the object of a bound method, which has no attribute for it.
static mp_obj_t mod_self_of(mp_obj_t method) {
    struct { // py/objboundmeth.c
        mp_obj_base_t base;
        mp_obj_t meth;
        mp_obj_t self;
    } *bound = MP_OBJ_TO_PTR(method);
    if (!mp_obj_is_type(method, &mp_type_bound_meth)) {
        mp_raise_TypeError(MP_ERROR_TEXT("no bound method"));
    }
    return bound->self;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_self_of_obj, mod_self_of);

static const mp_rom_map_elem_t cpu_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_cpu)},
    {MP_ROM_QSTR(MP_QSTR_HostFault), MP_ROM_PTR(&hostfault_type)},
    {MP_ROM_QSTR(MP_QSTR_Timeout), MP_ROM_PTR(&mp_type_Timeout)},
    {MP_ROM_QSTR(MP_QSTR_cpuid), MP_ROM_PTR(&mod_cpuid_obj)},
    {MP_ROM_QSTR(MP_QSTR_rdmsr), MP_ROM_PTR(&mod_rdmsr_obj)},
    {MP_ROM_QSTR(MP_QSTR_wrmsr), MP_ROM_PTR(&mod_wrmsr_obj)},
    {MP_ROM_QSTR(MP_QSTR_cr), MP_ROM_PTR(&mod_cr_obj)},
    {MP_ROM_QSTR(MP_QSTR_set_cr), MP_ROM_PTR(&mod_set_cr_obj)},
    {MP_ROM_QSTR(MP_QSTR_xcr0), MP_ROM_PTR(&mod_xcr0_obj)},
    {MP_ROM_QSTR(MP_QSTR_set_xcr0), MP_ROM_PTR(&mod_set_xcr0_obj)},
    {MP_ROM_QSTR(MP_QSTR_inb), MP_ROM_PTR(&mod_inb_obj)},
    {MP_ROM_QSTR(MP_QSTR_inw), MP_ROM_PTR(&mod_inw_obj)},
    {MP_ROM_QSTR(MP_QSTR_inl), MP_ROM_PTR(&mod_inl_obj)},
    {MP_ROM_QSTR(MP_QSTR_outb), MP_ROM_PTR(&mod_outb_obj)},
    {MP_ROM_QSTR(MP_QSTR_outw), MP_ROM_PTR(&mod_outw_obj)},
    {MP_ROM_QSTR(MP_QSTR_outl), MP_ROM_PTR(&mod_outl_obj)},
    {MP_ROM_QSTR(MP_QSTR_insl), MP_ROM_PTR(&cpu_insl_obj)},
    {MP_ROM_QSTR(MP_QSTR_outsl), MP_ROM_PTR(&cpu_outsl_obj)},
    {MP_ROM_QSTR(MP_QSTR_line), MP_ROM_PTR(&cpu_line_obj)},
    {MP_ROM_QSTR(MP_QSTR_self_of), MP_ROM_PTR(&mod_self_of_obj)},
    {MP_ROM_QSTR(MP_QSTR_rdtsc), MP_ROM_PTR(&mod_rdtsc_obj)},
    {MP_ROM_QSTR(MP_QSTR_random), MP_ROM_PTR(&mod_random_obj)},
    {MP_ROM_QSTR(MP_QSTR_alarm), MP_ROM_PTR(&mod_alarm_obj)},
    {MP_ROM_QSTR(MP_QSTR_look_at), MP_ROM_PTR(&mod_look_at_obj)},
    {MP_ROM_QSTR(MP_QSTR_zero), MP_ROM_PTR(&mod_zero_obj)},
    {MP_ROM_QSTR(MP_QSTR_copy), MP_ROM_PTR(&mod_copy_obj)},
    {MP_ROM_QSTR(MP_QSTR_look), MP_ROM_PTR(&mod_look_obj)},
    {MP_ROM_QSTR(MP_QSTR_due), MP_ROM_PTR(&mod_due_obj)},
    {MP_ROM_QSTR(MP_QSTR_add_up), MP_ROM_PTR(&cpu_add_up_obj)},
    {MP_ROM_QSTR(MP_QSTR_history), MP_ROM_PTR(&cpu_history_obj)},
    {MP_ROM_QSTR(MP_QSTR_terminal), MP_ROM_PTR(&cpu_terminal_obj)},
    {MP_ROM_QSTR(MP_QSTR_completer), MP_ROM_PTR(&cpu_completer_obj)},
    {MP_ROM_QSTR(MP_QSTR_errors), MP_ROM_PTR(&cpu_errors_obj)},
    {MP_ROM_QSTR(MP_QSTR_idle_hook), MP_ROM_PTR(&cpu_idle_hook_obj)},
    {MP_ROM_QSTR(MP_QSTR_soft_reset_hook), MP_ROM_PTR(&cpu_soft_reset_hook_obj)},
    {MP_ROM_QSTR(MP_QSTR_exit_resets), MP_ROM_PTR(&cpu_exit_resets_obj)},
    {MP_ROM_QSTR(MP_QSTR_mailbox), MP_ROM_PTR(&cpu_mailbox_obj)},
    {MP_ROM_QSTR(MP_QSTR_wanted), MP_ROM_PTR(&cpu_wanted_obj)},
    {MP_ROM_QSTR(MP_QSTR_idle), MP_ROM_PTR(&cpu_idle_obj)},
    {MP_ROM_QSTR(MP_QSTR_guard), MP_ROM_PTR(&cpu_guard_obj)},
    {MP_ROM_QSTR(MP_QSTR_attempt), MP_ROM_PTR(&cpu_attempt_obj)},
    {MP_ROM_QSTR(MP_QSTR_limited), MP_ROM_PTR(&cpu_limited_obj)},
    {MP_ROM_QSTR(MP_QSTR_shield), MP_ROM_PTR(&cpu_shield_obj)},
    {MP_ROM_QSTR(MP_QSTR_reading), MP_ROM_PTR(&cpu_reading_obj)},
    {MP_ROM_QSTR(MP_QSTR_watch), MP_ROM_PTR(&cpu_watch_obj)},
    {MP_ROM_QSTR(MP_QSTR_counters), MP_ROM_PTR(&mod_counters_obj)},
    {MP_ROM_QSTR(MP_QSTR_preempt), MP_ROM_PTR(&cpu_preempt_obj)},
    {MP_ROM_QSTR(MP_QSTR_hold), MP_ROM_PTR(&cpu_hold_obj)},
    {MP_ROM_QSTR(MP_QSTR_allocated), MP_ROM_PTR(&cpu_allocated_obj)},
    {MP_ROM_QSTR(MP_QSTR_heap), MP_ROM_PTR(&cpu_heap_obj)},
    {MP_ROM_QSTR(MP_QSTR_heap_free), MP_ROM_PTR(&cpu_heap_free_obj)},
    {MP_ROM_QSTR(MP_QSTR_nmis), MP_ROM_PTR(&mod_nmis_obj)},
    {MP_ROM_QSTR(MP_QSTR_take_nmi), MP_ROM_PTR(&mod_take_nmi_obj)},
    {MP_ROM_QSTR(MP_QSTR_machine_check_banks), MP_ROM_PTR(&cpu_machine_check_banks_obj)},
    {MP_ROM_QSTR(MP_QSTR_machine_checks), MP_ROM_PTR(&cpu_machine_checks_obj)},
    {MP_ROM_QSTR(MP_QSTR_refused), MP_ROM_PTR(&cpu_refused_obj)},
    {MP_ROM_QSTR(MP_QSTR_uncounted), MP_ROM_PTR(&cpu_uncounted_obj)},
    {MP_ROM_QSTR(MP_QSTR_collect_at), MP_ROM_PTR(&cpu_collect_at_obj)},
    {MP_ROM_QSTR(MP_QSTR_protect), MP_ROM_PTR(&cpu_protect_obj)},
    {MP_ROM_QSTR(MP_QSTR_unprotect), MP_ROM_PTR(&cpu_unprotect_obj)},
    {MP_ROM_QSTR(MP_QSTR_written), MP_ROM_PTR(&cpu_written_obj)},
    {MP_ROM_QSTR(MP_QSTR_put), MP_ROM_PTR(&cpu_put_obj)},
    {MP_ROM_QSTR(MP_QSTR_wrote), MP_ROM_PTR(&cpu_wrote_obj)},
    {MP_ROM_QSTR(MP_QSTR_room), MP_ROM_PTR(&cpu_room_obj)},
};
static MP_DEFINE_CONST_DICT(cpu_globals, cpu_globals_table);

const mp_obj_module_t mp_module_cpu = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&cpu_globals,
};

MP_REGISTER_MODULE(MP_QSTR_cpu, mp_module_cpu);
MP_REGISTER_MODULE_DELEGATION(mp_module_cpu, mp_module_cpu_attr);
