// The cpu module: instructions and time for Python, the idle hook, the watchdog.
//
// Values below 2**62 come and go as small ints and allocate nothing; larger ones
// (some MSRs) are big ints.
#include <string.h>
#include "py/objexcept.h"
#include "py/runtime.h"
#include "port/exec.h"
#include "port/modcpu.h"
#include "port/preempt.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/uart.h"
#include "port/x86.h"
#include "shared/runtime/interrupt_char.h"
#include "shared/runtime/pyexec.h"

#define WATCH_SHOTS 3 // Timeouts that a guarded function may swallow

typedef struct {
    uint64_t deadline; // host TSC; 0 = none
    bool input; // something typed ends it: not for a sleeper
} wait_t;

static struct {
    bool in_hook;
    bool forced; // the hook was interrupted because it did not return
    uint64_t calls; // of the hook
    uint64_t stuck; // the call that Ctrl-C found running
    wait_t wait; // the current one
    unsigned shots; // Timeouts since watch()
} state;

// cpu.HostFault(name, vector, error_code, rip, address): an exception of this CPU
// in code that Python called. Args are in that order, also as attributes.
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

static MP_DEFINE_CONST_OBJ_TYPE(cpu_host_fault_type, MP_QSTR_HostFault, MP_TYPE_FLAG_NONE, make_new,
    mp_obj_exception_make_new, print, host_fault_print, attr, host_fault_attr, parent,
    &mp_type_Exception);

// cpu.Timeout: the deadline of cpu.watch() has passed.
MP_DEFINE_EXCEPTION(Timeout, Exception)

void cpu_raise_host_fault(uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t address) {
    const char *name = trap_name(vector);
    mp_obj_t args[5] = {
        mp_obj_new_str_from_cstr(name),
        MP_OBJ_NEW_SMALL_INT(vector),
        mp_obj_new_int_from_uint(error_code),
        mp_obj_new_int_from_uint(rip),
        mp_obj_new_int_from_uint(address),
    };
    nlr_raise(mp_obj_exception_make_new(&cpu_host_fault_type, 5, 0, args));
}

void cpu_module_init(void) {
    MP_STATE_PORT(cpu_timeout) = mp_obj_new_exception(&mp_type_Timeout);
    MP_STATE_PORT(cpu_idle_hook) = mp_const_none;
    MP_STATE_PORT(preempt_hook) = mp_const_none;
    preempt_at = preempt_holds = 0;
    state.in_hook = false;
    nlr_set_abort(NULL);
    timer_set(TIMER_WATCH, 0);
    timer_set(TIMER_CORE, 0);
}

void cpu_ctrl_c(void) {
    if (state.in_hook) {
        state.stuck = state.calls;
        timer_set(TIMER_STUCK, rdtsc() + tsc_hz);
    }
}

// Code in guard() that swallows its Timeout gets another, soon; at last an abort that
// no `except` catches.
void timer_expired(timer_slot_t slot) {
    if (slot == TIMER_WATCH) {
        if (nlr_get_abort() != NULL) {
            timer_set(TIMER_WATCH, rdtsc() + tsc_hz / 20);
            if (state.shots++ >= WATCH_SHOTS) {
                mp_sched_vm_abort(); // and the Timeout, which native code looks for
            }
        }
        mp_obj_exception_t *timeout = MP_OBJ_TO_PTR(MP_STATE_PORT(cpu_timeout));
        timeout->traceback_data = NULL;
        mp_sched_exception(MP_OBJ_FROM_PTR(timeout));
    } else if (slot == TIMER_STUCK && state.in_hook && state.stuck == state.calls) {
        state.forced = true;
        mp_sched_keyboard_interrupt();
    }
}

static bool due(void) {
    return state.wait.deadline != 0 && rdtsc() >= state.wait.deadline;
}

bool cpu_wanted(void) {
    return (state.wait.input && uart_rx_any(0) != 0) ||
           MP_STATE_MAIN_THREAD(mp_pending_exception) != MP_OBJ_NULL ||
           MP_STATE_VM(sched_state) == MP_SCHED_PENDING;
}

// The deadline is looked at with interrupts off: if its interrupt came before, no other
// would end the HLT.
static void halt_until_interrupt(uint64_t deadline) {
    irq_disable();
    if (cpu_wanted() || due() || (deadline != 0 && rdtsc() >= deadline)) {
        irq_enable();
    } else {
        irq_enable_and_halt();
    }
}

// Exceptions that the hook did not cause: they are for the code that waits.
static bool is_for_caller(mp_obj_t error) {
    mp_obj_t type = MP_OBJ_FROM_PTR(mp_obj_get_type(error));
    return mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_KeyboardInterrupt)) ||
           mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_SystemExit)) ||
           mp_obj_is_subclass_fast(type, MP_OBJ_FROM_PTR(&mp_type_Timeout));
}

static void call_hook(mp_obj_t hook, uint64_t deadline) {
    nlr_buf_t nlr;
    state.calls++;
    state.forced = false;
    state.in_hook = true;
    if (nlr_push(&nlr) == 0) {
        mp_call_function_1(hook, mp_obj_new_int_from_uint(deadline));
        nlr_pop();
        state.in_hook = false;
        return;
    }
    state.in_hook = false;
    mp_obj_t error = MP_OBJ_FROM_PTR(nlr.ret_val);
    if (!state.forced && is_for_caller(error)) {
        nlr_jump(nlr.ret_val);
    }
    MP_STATE_PORT(cpu_idle_hook) = mp_const_none;
    mp_printf(MICROPY_ERROR_PRINTER, "\nThe idle hook %s and is removed:\n",
        state.forced ? "did not return" : "failed");
    mp_obj_print_exception(MICROPY_ERROR_PRINTER, error);
}

void cpu_wait(uint64_t deadline, bool input) {
    mp_obj_t hook = MP_STATE_PORT(cpu_idle_hook);
    wait_t outer = state.wait; // of the wait whose hook runs: a policy may sleep
    state.wait = (wait_t){deadline, input};
    timer_set(TIMER_WAIT, deadline);
    if (state.in_hook) {
        halt_until_interrupt(deadline);
        state.wait = outer;
        timer_set(TIMER_WAIT, outer.deadline);
    } else if (hook == mp_const_none || hook == MP_OBJ_NULL) {
        halt_until_interrupt(deadline);
    } else if (!cpu_wanted() && !due()) {
        call_hook(hook, deadline); // with nothing to run it returns at once: do not spin on it
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

static mp_obj_t mod_zero(mp_obj_t hpa, mp_obj_t size) {
    memset((void *)mp_obj_get_int_truncated(hpa), 0, mp_obj_get_int(size));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_zero_obj, mod_zero);

static mp_obj_t mod_copy(mp_obj_t to_hpa, mp_obj_t from_hpa, mp_obj_t size) {
    memmove((void *)mp_obj_get_int_truncated(to_hpa), (void *)mp_obj_get_int_truncated(from_hpa),
        mp_obj_get_int(size));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_3(mod_copy_obj, mod_copy);

// idle_hook(f): f(deadline_tsc) runs while the prompt or a sleep waits; it returns
// when wanted() is true or the deadline (0 = none) has passed. None removes it.
static mp_obj_t mod_idle_hook(mp_obj_t hook) {
    if (hook != mp_const_none && !mp_obj_is_callable(hook)) {
        mp_raise_TypeError(MP_ERROR_TEXT("callable or None expected"));
    }
    MP_STATE_PORT(cpu_idle_hook) = hook;
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_idle_hook_obj, mod_idle_hook);

static mp_obj_t mod_wanted(void) {
    return mp_obj_new_bool(cpu_wanted() || due());
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_wanted_obj, mod_wanted);

// idle(deadline_tsc) -> bool: HLT until the next interrupt, or the deadline (0 = none).
// True when there was more than the deadline: a host interrupt, or the monitor is wanted.
static mp_obj_t mod_idle(mp_obj_t deadline_in) {
    uint64_t deadline = mp_obj_get_int_truncated(deadline_in);
    timer_set(TIMER_CORE, deadline);
    halt_until_interrupt(deadline);
    timer_set(TIMER_CORE, 0);
    bool more = host_attention != 0 || cpu_wanted() || due();
    host_attention = 0;
    return mp_obj_new_bool(more);
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_idle_obj, mod_idle);

// reading(): whether the raw REPL waits for a program's words; what is printed then would
// be taken for its answer.
static mp_obj_t mod_reading(void) {
    return mp_obj_new_bool(pyexec_mode_kind == PYEXEC_MODE_RAW_REPL && mp_interrupt_char < 0);
}
static MP_DEFINE_CONST_FUN_OBJ_0(mod_reading_obj, mod_reading);

// watch(deadline_tsc): raises Timeout in whatever Python code runs then; 0 disarms,
// also a Timeout that is on its way.
static void watch(uint64_t deadline) {
    uint64_t flags = irq_save();
    timer_set(TIMER_WATCH, deadline);
    state.shots = 0;
    MP_STATE_VM(vm_abort) = false;
    if (MP_STATE_MAIN_THREAD(mp_pending_exception) == MP_STATE_PORT(cpu_timeout)) {
        MP_STATE_MAIN_THREAD(mp_pending_exception) = MP_OBJ_NULL;
    }
    irq_restore(flags);
}

cpu_watch_t cpu_watch_suspend(void) {
    cpu_watch_t suspended = {timer_get(TIMER_WATCH), rdtsc(), state.shots};
    if (suspended.deadline != 0) {
        timer_set(TIMER_WATCH, 0);
    }
    return suspended;
}

void cpu_watch_resume(cpu_watch_t suspended) {
    if (suspended.deadline != 0) {
        state.shots = suspended.shots;
        timer_set(TIMER_WATCH, suspended.deadline + (rdtsc() - suspended.since));
    }
}

static mp_obj_t mod_watch(mp_obj_t deadline) {
    watch(mp_obj_get_int_truncated(deadline));
    return mp_const_none;
}
static MP_DEFINE_CONST_FUN_OBJ_1(mod_watch_obj, mod_watch);

// guard(f, argument) -> f(argument). Where watch() has raised its Timeout in there and f
// has caught it several times, f is ended whatever it does, and Timeout is raised here.
static mp_obj_t mod_guard(mp_obj_t function, mp_obj_t argument) {
    nlr_buf_t nlr;
    nlr_buf_t *outer = nlr_get_abort();
    mp_obj_dict_t *globals = mp_globals_get();
    mp_obj_dict_t *locals = mp_locals_get();
    size_t gc_locks = MP_STATE_THREAD(gc_lock_depth);
    if (nlr_push(&nlr) == 0) {
        nlr_set_abort(&nlr);
        mp_obj_t answer = mp_call_function_1(function, argument);
        nlr_pop();
        nlr_set_abort(outer);
        return answer;
    }
    nlr_set_abort(outer);
    if (nlr.ret_val != NULL) {
        nlr_jump(nlr.ret_val);
    }
    watch(0);
    // No frame in between has run to its end: what it would have put back is put back here.
    mp_globals_set(globals);
    mp_locals_set(locals);
    MP_STATE_THREAD(gc_lock_depth) = gc_locks;
    mp_raise_msg(&mp_type_Timeout, MP_ERROR_TEXT("caught and ignored until it was ended"));
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_guard_obj, mod_guard);

// attempt(function, argument): as guard(), but an exception is returned, not raised: viper
// code cannot hold one that it has caught.
static mp_obj_t mod_attempt(mp_obj_t function, mp_obj_t argument) {
    nlr_buf_t nlr;
    if (nlr_push(&nlr) == 0) {
        mp_obj_t answer = mod_guard(function, argument);
        nlr_pop();
        return answer;
    }
    return MP_OBJ_FROM_PTR(nlr.ret_val);
}
static MP_DEFINE_CONST_FUN_OBJ_2(mod_attempt_obj, mod_attempt);

MP_DECLARE_CONST_FUN_OBJ_1(cpu_preempt_obj);
MP_DECLARE_CONST_FUN_OBJ_1(cpu_hold_obj);

// counters(): what went unnoticed otherwise. Interrupts that nobody claimed, characters
// lost on COM1, bytes of the executable region in use.
static mp_obj_t mod_counters(void) {
    mp_obj_t dict = mp_obj_new_dict(3);
    mp_obj_dict_store(dict, MP_OBJ_NEW_QSTR(MP_QSTR_unclaimed_interrupts),
        mp_obj_new_int_from_uint(trap_unclaimed()));
    mp_obj_dict_store(
        dict, MP_OBJ_NEW_QSTR(MP_QSTR_com1_overruns), mp_obj_new_int_from_uint(uart_overruns(0)));
    mp_obj_dict_store(
        dict, MP_OBJ_NEW_QSTR(MP_QSTR_exec_used), mp_obj_new_int_from_uint(exec_used()));
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

static const mp_rom_map_elem_t cpu_globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR_cpu)},
    {MP_ROM_QSTR(MP_QSTR_HostFault), MP_ROM_PTR(&cpu_host_fault_type)},
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
    {MP_ROM_QSTR(MP_QSTR_rdtsc), MP_ROM_PTR(&mod_rdtsc_obj)},
    {MP_ROM_QSTR(MP_QSTR_zero), MP_ROM_PTR(&mod_zero_obj)},
    {MP_ROM_QSTR(MP_QSTR_copy), MP_ROM_PTR(&mod_copy_obj)},
    {MP_ROM_QSTR(MP_QSTR_idle_hook), MP_ROM_PTR(&mod_idle_hook_obj)},
    {MP_ROM_QSTR(MP_QSTR_wanted), MP_ROM_PTR(&mod_wanted_obj)},
    {MP_ROM_QSTR(MP_QSTR_idle), MP_ROM_PTR(&mod_idle_obj)},
    {MP_ROM_QSTR(MP_QSTR_guard), MP_ROM_PTR(&mod_guard_obj)},
    {MP_ROM_QSTR(MP_QSTR_attempt), MP_ROM_PTR(&mod_attempt_obj)},
    {MP_ROM_QSTR(MP_QSTR_reading), MP_ROM_PTR(&mod_reading_obj)},
    {MP_ROM_QSTR(MP_QSTR_watch), MP_ROM_PTR(&mod_watch_obj)},
    {MP_ROM_QSTR(MP_QSTR_counters), MP_ROM_PTR(&mod_counters_obj)},
    {MP_ROM_QSTR(MP_QSTR_preempt), MP_ROM_PTR(&cpu_preempt_obj)},
    {MP_ROM_QSTR(MP_QSTR_hold), MP_ROM_PTR(&cpu_hold_obj)},
};
static MP_DEFINE_CONST_DICT(cpu_globals, cpu_globals_table);

const mp_obj_module_t mp_module_cpu = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&cpu_globals,
};

MP_REGISTER_MODULE(MP_QSTR_cpu, mp_module_cpu);
MP_REGISTER_MODULE_DELEGATION(mp_module_cpu, mp_module_cpu_attr);
MP_REGISTER_ROOT_POINTER(mp_obj_t cpu_timeout);
MP_REGISTER_ROOT_POINTER(mp_obj_t cpu_idle_hook);
