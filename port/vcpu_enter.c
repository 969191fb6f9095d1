// The exit loop: vmx.enter(). One file, since the compiler inlines each step of an entry and an exit into enter_once():
// a call would cost every exit.

#include "py/runtime.h"
#include "port/vmxops.h"
#include "port/vcpu.h"
#include "port/timer.h"
#include "port/trap.h"
#include "port/bound.h"
#include "port/advance.h"
#include "port/bochs27.h"
#include "port/coalesce.h"
#include "port/trace.h"

#define REASON_ENTRY_FAILURE (1ull << 31)
#define MIN_RUN_AS_LONG      (~0ull)

#define PRED_CMD_IBPB (1)

// Host TSC at which the first timer is due; 1 where the host's TSC would not be positive; 0 where none is armed.
// except: bits of the timers to ignore.
static uint64_t first_timer(const vcpu_frame_t *f, uint64_t except) {
    uint64_t first = 0;
    for (uint64_t i = 0; i < f->timers; i++, except >>= 1) {
        uint64_t when = f->timer[i];
        if (when != 0 && !(except & 1) && (first == 0 || when < first)) {
            first = when;
        }
    }
    int64_t host = first - f->clock_offset;
    return first == 0 ? 0 : host > 0 ? (uint64_t)host : 1;
}

// earliest(frame_hpa): frame.next becomes the host TSC at which a halted guest is to be woken for its next timer, 0
// where only parked ones are armed.
static mp_obj_t mod_earliest(mp_obj_t frame) {
    vcpu_frame_t *f = (vcpu_frame_t *)(uintptr_t)mp_obj_get_int_truncated(frame);
    uint64_t first = first_timer(f, f->parked);
    f->next = first == 0 ? 0 : first > f->lead ? first - f->lead : 1;
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_1(vcpu_earliest_obj, mod_earliest);

// first: host TSC at which the first timer is due, 0: none.
static inline void set_deadline(vcpu_frame_t *f, uint64_t first) {
    f->deadline = f->slice_end - 1 < first - 1 ? f->slice_end : first; // 0 is later than any
}

static __attribute__((noinline)) void find_deadline(vcpu_frame_t *f) {
    set_deadline(f, first_timer(f, 0));
}

// Ends a stop of the guest's clock, and of its vCPUs' TSCs, which have stood still since f->stopped. The guest sees the
// time after RDTSC here, so the timers are scanned before.
static __attribute__((noinline)) void clock_goes_on(vcpu_frame_t *f) {
    uint64_t first = first_timer(f, 0);
    uint64_t gone = op_rdtsc() - f->stopped + f->unseen;
    vcpu_frame_t *each = f;
    do {
        each->tsc_offset -= gone;
        each->clock_offset -= gone;
        each->stopped = 0;
        each->dirty |= FRAME_DIRTY_TSC_OFFSET | FRAME_DIRTY_TIMERS;
        each = (vcpu_frame_t *)each->sibling;
    } while (each != NULL && each != f);
    vmx_put(TSC_OFFSET, f->tsc_offset);
    set_deadline(f, first == 0 ? 0 : first + gone);
    f->dirty = 0;
}

// Writes the dirty words to the VMCS. The end of a stop comes last, so that little of the entry follows it. The calls
// are in tail position, so that no stack frame is set up for them.
static __attribute__((noinline)) void write_back(vcpu_frame_t *f) {
    uint64_t dirty = f->dirty;
    if (dirty & FRAME_DIRTY_RIP) {
        vmx_put(GUEST_RIP, f->rip);
    }
    if (dirty & FRAME_DIRTY_RSP) {
        vmx_put(GUEST_RSP, f->gpr[4]);
    }
    if (dirty & FRAME_DIRTY_RFLAGS) {
        vmx_put(GUEST_RFLAGS, f->rflags);
    }
    if (dirty & FRAME_DIRTY_CONTROLS) {
        vmx_put(PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS, f->controls);
    }
    if (dirty & FRAME_DIRTY_RVI) {
        uint64_t status = vmx_get(GUEST_INTERRUPT_STATUS);
        if ((status & 0xff) < f->rvi) {
            vmx_put(GUEST_INTERRUPT_STATUS, (status & ~0xffull) | f->rvi);
        }
    }
    if (dirty & FRAME_DIRTY_ENTRY) {
        vmx_put(VM_ENTRY_INTERRUPTION_INFORMATION, f->entry_info);
        vmx_put(VM_ENTRY_EXCEPTION_ERROR_CODE, f->entry_error);
        vmx_put(VM_ENTRY_INSTRUCTION_LENGTH, f->entry_length);
    }
    if (dirty & FRAME_DIRTY_TSC_OFFSET) {
        if (MP_UNLIKELY(f->stopped != 0) && (!host_attention || vmx_cpu.holdoff != 0)) {
            clock_goes_on(f);
            return;
        }
        vmx_put(TSC_OFFSET, f->tsc_offset); // a stop, if any, goes on: no entry follows
    }
    f->dirty = 0;
    if (dirty & FRAME_DIRTY_TIMERS) {
        find_deadline(f);
    }
}

// Whether RIP has 64 bits: in 64-bit mode, that is, with both of these bits set.
static __attribute__((noinline)) bool in_64_bit_mode(void) {
    return (vmx_get(VM_ENTRY_CONTROLS) & ENTRY_IA32E_MODE_GUEST) != 0 &&
           (vmx_get(GUEST_CS_ACCESS_RIGHTS) & RIGHTS_L) != 0;
}

// The rare parts of an instruction's completion: RF, blocking by STI and MOV SS, a single step.
static __attribute__((noinline)) void complete(vcpu_frame_t *f) {
    if (f->rflags & RFLAGS_RF) {
        f->rflags &= ~RFLAGS_RF;
        f->dirty |= FRAME_DIRTY_RFLAGS;
    }
    if (f->interruptibility & BLOCKING_BY_STI_MOV_SS) {
        f->interruptibility &= ~(uint64_t)BLOCKING_BY_STI_MOV_SS;
        vmx_put(GUEST_INTERRUPTIBILITY_STATE,
            vmx_get(GUEST_INTERRUPTIBILITY_STATE) & ~BLOCKING_BY_STI_MOV_SS);
    }
    if ((f->rflags & RFLAGS_TF) && !(vmx_get(GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF)) {
        vmx_put(
            GUEST_PENDING_DEBUG_EXCEPTIONS, vmx_get(GUEST_PENDING_DEBUG_EXCEPTIONS) | PENDING_BS);
    }
}

// Advances RIP past the instruction that exited. Like its completion on the CPU, this clears RF, ends blocking by STI
// and MOV SS and makes a single step due. EIP wraps at 4 GiB. The handler of VCPU_SLOT_COMPLETED finds the breakpoints
// that matched: only for reasons that read DR7, since reading it costs a monitor under KVM an exit (KVM's shadow VMCS
// does not hold DR7).
static inline __attribute__((always_inline)) void advance(vcpu_frame_t *f) {
    f->verdict = 0;
    uint64_t rip = f->rip + f->length;
    if (MP_UNLIKELY((uint32_t)rip <= INSTRUCTION_BYTES) && !in_64_bit_mode()) {
        rip = (uint32_t)rip;
    }
    f->rip = rip;
    f->dirty |= FRAME_DIRTY_RIP;
    if (MP_UNLIKELY((f->rflags & (RFLAGS_RF | RFLAGS_TF)) |
                    (f->interruptibility & BLOCKING_BY_STI_MOV_SS))) {
        complete(f);
    }
    if ((f->wants[f->reason] & FRAME_WANT_DR7) && MP_UNLIKELY(f->dr7 & DR7_ENABLES)) {
        f->completed = f->pending = 1;
    }
}

void vcpu_advance(vcpu_t *self) {
    advance(self->frame);
}

// Charges the cost of the last exit up to now, unless left() has charged it already.
static inline __attribute__((always_inline)) void count_ticks(vcpu_frame_t *f, uint64_t now) {
    uint64_t since = f->exit_tsc;
    if (MP_LIKELY(since != 0)) {
        uint64_t cost = now - since;
        f->host_ticks += cost;
        f->ticks[f->reason] += cost;
        f->exit_tsc = 0;
    }
}

// Resolves a min_run of "as long as this exit cost", up to a limit. since: its exit_tsc, 0 where it has been charged.
static void run_as_long(vcpu_frame_t *f, uint64_t since, uint64_t now) {
    if (f->min_run == MIN_RUN_AS_LONG && since != 0) {
        f->min_run = now - since < MIN_RUN_MOST ? now - since : MIN_RUN_MOST;
    }
}

void vcpu_count_ticks(vcpu_frame_t *f, uint64_t now) {
    run_as_long(f, f->exit_tsc, now);
    count_ticks(f, now);
}

// The words of the frame that wants[] can ask for, bit 0 first.
static const struct {
    uint16_t field;
    uint16_t offset;
} wanted[] = {
    {GUEST_DR7, offsetof(vcpu_frame_t, dr7)},
    {GUEST_LINEAR_ADDRESS, offsetof(vcpu_frame_t, linear)},
    {GUEST_PHYSICAL_ADDRESS, offsetof(vcpu_frame_t, gpa)},
    {VM_EXIT_INTERRUPTION_INFORMATION, offsetof(vcpu_frame_t, intr_info)},
    {VM_EXIT_INTERRUPTION_ERROR_CODE, offsetof(vcpu_frame_t, intr_error)},
    {IDT_VECTORING_INFORMATION, offsetof(vcpu_frame_t, vectoring_info)},
    {IDT_VECTORING_ERROR_CODE, offsetof(vcpu_frame_t, vectoring_error)},
    {VM_EXIT_INSTRUCTION_INFORMATION, offsetof(vcpu_frame_t, instr_info)},
    {GUEST_CR3, offsetof(vcpu_frame_t, cr3)},
    {GUEST_CS_ACCESS_RIGHTS, offsetof(vcpu_frame_t, cs_rights)},
    {GUEST_CS_BASE, offsetof(vcpu_frame_t, cs_base)},
    {GUEST_CR0, offsetof(vcpu_frame_t, cr0)},
    {GUEST_CR4, offsetof(vcpu_frame_t, cr4)},
    {VM_ENTRY_CONTROLS, offsetof(vcpu_frame_t, entry_controls)},
    {GUEST_SS_ACCESS_RIGHTS, offsetof(vcpu_frame_t, ss_rights)},
    {CR0_READ_SHADOW, offsetof(vcpu_frame_t, cr0_shadow)},
};

static inline __attribute__((always_inline)) void read_wanted(vcpu_frame_t *f, uint32_t wants) {
    for (uint32_t i = 0; MP_UNLIKELY(wants != 0); wants >>= 1, i++) {
        if (wants & 1) {
            *(uint64_t *)((uint8_t *)f + wanted[i].offset) = vmx_get(wanted[i].field);
        }
    }
}

void vcpu_want(vcpu_t *self, uint32_t wants) {
    read_wanted(self->frame, wants & ((1u << MP_ARRAY_SIZE(wanted)) - 1));
}

// The slot of the table for an exit: its reason's, or the one that the reason's keys have
// for a word of the frame.
static inline __attribute__((always_inline)) uint64_t slot_of(vcpu_frame_t *f, uint64_t reason) {
    uint64_t keys_at = f->keys[reason];
    if (keys_at == 0) {
        return reason;
    }
    const vcpu_keys_t *keys = (const vcpu_keys_t *)keys_at;
    uint32_t key = *(const uint64_t *)((const uint8_t *)f + keys->offset) & keys->mask;
    _Static_assert(sizeof(vcpu_key_t) == 16, "keys->scaled");
    uint64_t at = keys_at + ((uint32_t)(key * VCPU_KEY_FACTOR) >> keys->scaled & ~15u);
    for (;; at += sizeof(vcpu_key_t)) {
        const vcpu_key_t *entry = ((const vcpu_keys_t *)at)->entry;
        uint64_t slot = entry->slot;
        if (slot == 0) {
            return reason;
        }
        if (MP_LIKELY(entry->key == key)) {
            f->datum = entry->datum;
            return slot;
        }
    }
}

// Calls a handler; stores its verdict in the frame and returns it.
static inline __attribute__((always_inline)) mp_uint_t handle(
    vcpu_t *self, vcpu_frame_t *f, uint64_t slot) {
    mp_obj_t answer = bound_handler(self->table[slot], MP_OBJ_FROM_PTR(self));
    mp_uint_t verdict = MP_LIKELY(mp_obj_is_small_int(answer)) ? MP_OBJ_SMALL_INT_VALUE(answer)
                                                               : mp_obj_get_int(answer);
    f->verdict = verdict;
    return verdict;
}

// The same, out of line, for slots that are called instead of an entry.
static __attribute__((noinline)) void handle_no_exit(vcpu_t *self, uint64_t slot) {
    handle(self, self->frame, slot);
}

// Another vCPU is entered than the last one.
static __attribute__((noinline)) void switch_vcpu(const vcpu_frame_t *f) {
    vmx_cpu.ran = f;
    if (vmx_cpu.mitigations & VCPU_MITIGATE_IBPB) {
        op_wrmsr(IA32_PRED_CMD, PRED_CMD_IBPB);
    }
}

// Ticks of the preemption timer for a guest that may run for at least min_run, or at most until a host interrupt that
// waits is due (holdoff).
static __attribute__((noinline)) uint64_t limited_run(
    vcpu_frame_t *f, uint64_t left, uint64_t since, uint64_t now) {
    run_as_long(f, since, now);
    uint64_t min_run = f->min_run >> f->timer_shift;
    return coalesce_limit(left < min_run ? min_run : left, f->timer_shift);
}

// Charges the ticks that the guest has run to both limits.
static __attribute__((noinline)) void charge_limits(vcpu_frame_t *f, uint64_t ticks) {
    f->min_run = coalesce_less(f->min_run, ticks);
    vmx_cpu.holdoff = coalesce_less(vmx_cpu.holdoff, ticks);
}

// Runs the guest until it exits: 0, or the error of VMLAUNCH or VMRESUME. flawed: with work-arounds (bochs27.h).
static inline __attribute__((always_inline)) int run_guest(vcpu_frame_t *f, const bool flawed) {
    if (vmx_cpu.fpu_owner != f) {
        vmx_fpu_acquire(f);
        if (vmx_cpu.ran != f) {
            switch_vcpu(f);
        }
    }
    bool held = flawed && (vmx_cpu.flaws & FLAW_UNMASKED_VIRTUAL) && bochs27_hold(f);
    uint64_t now = op_rdtsc();
    uint64_t since = f->exit_tsc;
    count_ticks(f, now);
    bool limited = (f->min_run | vmx_cpu.holdoff) != 0;
    if (f->timer_shift < 64) {
        uint64_t left = 0xffffffff;
        if (f->deadline != 0) {
            uint64_t ticks = f->deadline > now ? (f->deadline - now) >> f->timer_shift : 0;
            left = ticks < left ? ticks : left;
        }
        if (flawed) {
            left = bochs27_limit(f, held, left);
        }
        if (MP_UNLIKELY(limited)) {
            left = limited_run(f, left, since, now);
        }
        vmx_put(VMX_PREEMPTION_TIMER_VALUE, left);
    }
    int failed = vmx_cpu.guest(f);
    uint64_t exit_tsc = op_rdtsc();
    if (held) {
        bochs27_release();
    }
    f->guest_ticks += exit_tsc - now;
    if (MP_UNLIKELY(limited)) {
        charge_limits(f, exit_tsc - now);
    }
    f->entry_tsc = now;
    f->exit_tsc = exit_tsc;
    return failed;
}

// The same with work-arounds (bochs27.h), out of line for CPUs that need none.
static __attribute__((noinline)) int run_guest_flawed(vcpu_frame_t *f) {
    return run_guest(f, true);
}

// A reason with bits above the basic one, or beyond the table. Returns the basic reason, and puts it into the frame;
// RuntimeError where the table has no slot for it.
static __attribute__((noinline)) uint64_t unusual_reason(vcpu_frame_t *f, uint64_t reason) {
    if (!(reason & REASON_ENTRY_FAILURE)) {
        f->launched = 1;
    }
    uint64_t basic = reason & 0xffff;
    f->reason = basic < VCPU_REASONS ? basic : VCPU_REASONS - 1;
    if (basic >= VCPU_SLOT_ATTENTION) {
        __asm volatile("sti" ::: "memory");
        mp_raise_msg_varg(
            &mp_type_RuntimeError, MP_ERROR_TEXT("exit reason %d is beyond the table"), (int)basic);
    }
    return basic;
}

// Reads the exit information into the frame; returns the basic reason.
static inline __attribute__((always_inline)) uint64_t read_exit(vcpu_frame_t *f) {
    uint64_t reason = vmx_get(EXIT_REASON);
    f->reason = reason;
    vmx_save(GUEST_RIP, &f->rip);
    vmx_save(GUEST_RFLAGS, &f->rflags);
    vmx_save(GUEST_RSP, &f->gpr[4]);
    vmx_save(EXIT_QUALIFICATION, &f->qualification);
    vmx_save(VM_EXIT_INSTRUCTION_LENGTH, &f->length);
    vmx_save(GUEST_INTERRUPTIBILITY_STATE, &f->interruptibility);
    if (MP_UNLIKELY(reason >= VCPU_SLOT_ATTENTION)) {
        reason = unusual_reason(f, reason);
    } else {
        f->launched = 1; // after an entry that failed the VMCS is as it was
    }
    f->count[reason]++;
    read_wanted(f, f->wants[reason]);
    return reason;
}

// Calls the slots of pending work before an entry. Returns whether the guest can be entered now.
static __attribute__((noinline)) bool handle_pending(vcpu_t *self, vcpu_frame_t *f) {
    if (MP_UNLIKELY(f->completed)) {
        f->completed = 0;
        handle_no_exit(self, VCPU_SLOT_COMPLETED);
        vcpu_need_loaded(self);
    }
    f->interruptibility = vmx_get(GUEST_INTERRUPTIBILITY_STATE);
    f->pending_debug = vmx_get(GUEST_PENDING_DEBUG_EXCEPTIONS);
    handle_no_exit(self, VCPU_SLOT_PENDING);
    if (f->pending_or_written || f->verdict) {
        if (f->written && f->verdict == 0) {
            handle_no_exit(self, VCPU_SLOT_WRITTEN);
        }
        return false;
    }
    vcpu_need_loaded(self); // another vCPU may have run in the middle of that handler
    return true;
}

// Runs the guest until it exits and calls the table's handler: by the basic exit reason, the reason's key, or, where
// the guest was not entered, the slot of the cause. Returns the verdict. recorded: whether the exit is recorded
// (trace.h).
static inline __attribute__((always_inline)) mp_uint_t enter_once(
    vcpu_t *self, vcpu_frame_t *f, const bool recorded) {
    vcpu_need_loaded(self);
    if (f->verdict & 1) {
        advance(f);
    }
    if (MP_UNLIKELY(f->pending_or_written) && !handle_pending(self, f)) {
        return f->verdict;
    }
    if (f->dirty) {
        if (MP_LIKELY(f->dirty == FRAME_DIRTY_RIP)) {
            vmx_put(GUEST_RIP, f->rip);
            f->dirty = 0;
        } else {
            write_back(f);
        }
    }
    if (MP_UNLIKELY(f->due != 0)) {
        advance_meet(f);
    }

    __asm volatile("cli" ::: "memory");
    if (MP_UNLIKELY(coalesce_due(f))) {
        __asm volatile("sti" ::: "memory");
        if (vmx_get(VM_ENTRY_INTERRUPTION_INFORMATION) & INFO_VALID) {
            f->dirty |= FRAME_DIRTY_ENTRY; // the event stays pending until an entry
        }
        handle_no_exit(self, VCPU_SLOT_ATTENTION);
        return f->verdict;
    }
    int failed = MP_UNLIKELY(vmx_cpu.flaws != 0) ? run_guest_flawed(f) : run_guest(f, false);
    if (MP_UNLIKELY(failed)) {
        __asm volatile("sti" ::: "memory");
        vmx_raise(f->launched ? "VMRESUME" : "VMLAUNCH", failed);
    }
    uint64_t basic = read_exit(f);
    __asm volatile("sti" ::: "memory"); // a host interrupt that caused the exit is taken here
    uint64_t slot = slot_of(f, basic);
    if (recorded) {
        trace_exit(f, basic, slot);
    }
    mp_uint_t verdict = handle(self, f, slot);
    if (recorded) {
        trace_verdict(f, verdict);
    }
    return verdict;
}

// enter() for a vCPU whose exits are recorded or measured.
static __attribute__((noinline)) mp_obj_t enter_recorded(vcpu_t *self) {
    vcpu_frame_t *f = self->frame;
    f->verdict &= 1;
    while (enter_once(self, f, true) <= 1) {
    }
    vcpu_count_ticks(f, op_rdtsc());
    trace_close(f);
    return mp_const_none;
}

// enter(vcpu): the exit loop. The guest is entered as long as handlers answer RESUME or ADVANCE; the verdict that ends
// the loop is in the frame. A handler's exception passes through: the guest then stands at the instruction that exited.
static mp_obj_t vcpu_enter(mp_obj_t obj, size_t n_args, size_t n_kw, const mp_obj_t *args) {
    if (MP_UNLIKELY(n_args != 1 || n_kw != 0 || !mp_obj_is_exact_type(args[0], &vcpu_type))) {
        mp_raise_TypeError(MP_ERROR_TEXT("enter takes a VCPU"));
    }
    (void)obj;
    vcpu_t *self = MP_OBJ_TO_PTR(args[0]);
    vcpu_frame_t *f = self->frame;
    if (MP_UNLIKELY(f->recorded)) {
        return enter_recorded(self);
    }
    f->verdict &= 1;
    while (enter_once(self, f, false) <= 1) {
    }
    vcpu_count_ticks(f, op_rdtsc()); // later time is not charged to the guest
    return mp_const_none;
}
// A type of its own rather than a built-in function, whose call would check the arguments a second time.
static MP_DEFINE_CONST_OBJ_TYPE(enter_type, MP_QSTR_enter, MP_TYPE_FLAG_NONE, call, vcpu_enter);
const mp_obj_base_t vcpu_enter_obj = {&enter_type};
