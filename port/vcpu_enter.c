// Into the guest and back: which vCPU the CPU holds, and vmx.enter().

#include "py/runtime.h"
#include "port/vmxops.h"
#include "port/vcpu.h"
#include "port/timer.h"

#define RFLAGS_TF              (1ull << 8)
#define RFLAGS_IF              (1ull << 9)
#define RFLAGS_RF              (1ull << 16)
#define DEBUGCTL_BTF           (1ull << 1)
#define PENDING_BS             (1ull << 14)
#define BLOCKING_BY_STI_MOV_SS (3)
#define REASON_ENTRY_FAILURE   (1ull << 31)

// -- which vCPU the CPU holds

static void live_to_frame(vcpu_frame_t *f) {
    f->cr2 = op_get_cr2();
    f->dr[0] = op_get_dr0();
    f->dr[1] = op_get_dr1();
    f->dr[2] = op_get_dr2();
    f->dr[3] = op_get_dr3();
    f->dr6 = op_get_dr6();
    for (vcpu_msr_t *m = f->msr; m < f->msr + VCPU_MSRS && m->index != 0; m++) {
        m->value = op_rdmsr(m->index);
    }
}

static void frame_to_live(const vcpu_frame_t *f) {
    op_set_cr2(f->cr2);
    op_set_dr0(f->dr[0]);
    op_set_dr1(f->dr[1]);
    op_set_dr2(f->dr[2]);
    op_set_dr3(f->dr[3]);
    op_set_dr6(f->dr6);
    for (const vcpu_msr_t *m = f->msr; m < f->msr + VCPU_MSRS && m->index != 0; m++) {
        op_wrmsr(m->index, m->value);
    }
}

static void write_back(vcpu_frame_t *f) {
    if (f->dirty & FRAME_RIP) {
        vmx_put(GUEST_RIP, f->rip);
    }
    if (f->dirty & FRAME_RSP) {
        vmx_put(GUEST_RSP, f->gpr[4]);
    }
    if (f->dirty & FRAME_RFLAGS) {
        vmx_put(GUEST_RFLAGS, f->rflags);
    }
    if (f->dirty & FRAME_ENTRY) {
        vmx_put(ENTRY_INTERRUPTION_INFO, f->entry_info);
        vmx_put(ENTRY_EXCEPTION_ERROR_CODE, f->entry_error);
        vmx_put(ENTRY_INSTRUCTION_LENGTH, f->entry_length);
        // The CPU clears the valid bit at the next exit: the event has been delivered.
        f->entry_info = 0;
    }
    f->dirty = 0;
}

void vcpu_put_away(void) {
    if (vmx_cpu.loaded != NULL) {
        live_to_frame(vmx_cpu.loaded->frame);
        vmx_cpu.loaded = NULL;
    }
}

static void load(vcpu_t *self) {
    vmx_need_root("VMPTRLD");
    vcpu_put_away();
    vmx_check("VMPTRLD", vmx_vmptrld(self->vmcs));
    frame_to_live(self->frame);
    vmx_cpu.loaded = self;
}

void vcpu_need_loaded(vcpu_t *self) {
    if (vmx_cpu.loaded != self) {
        load(self);
    }
}

// -- into the guest

// Past the instruction that exited. Like its completion on the CPU, this clears RF,
// ends blocking by STI and MOV SS and makes a single step due.
void vcpu_advance(vcpu_t *self) {
    vcpu_frame_t *f = self->frame;
    f->verdict = 0;
    f->rip += f->length;
    f->dirty |= FRAME_RIP;
    if (f->rflags & RFLAGS_RF) {
        f->rflags &= ~RFLAGS_RF;
        f->dirty |= FRAME_RFLAGS;
    }
    uint64_t blocking = vmx_get(GUEST_INTERRUPTIBILITY);
    if (blocking & BLOCKING_BY_STI_MOV_SS) {
        vmx_put(GUEST_INTERRUPTIBILITY, blocking & ~BLOCKING_BY_STI_MOV_SS);
    }
    if ((f->rflags & RFLAGS_TF) && !(vmx_get(GUEST_IA32_DEBUGCTL) & DEBUGCTL_BTF)) {
        vmx_put(
            GUEST_PENDING_DEBUG_EXCEPTIONS, vmx_get(GUEST_PENDING_DEBUG_EXCEPTIONS) | PENDING_BS);
    }
}

// What the last exit has cost up to now, unless left() has counted it already.
void vcpu_count_ticks(vcpu_frame_t *f, uint64_t now) {
    if (f->exit_tsc != 0) {
        uint64_t last = f->reason & 0x7f;
        if (last < VCPU_REASONS) {
            f->ticks[last] += now - f->exit_tsc;
        }
        f->host_ticks += now - f->exit_tsc;
        f->exit_tsc = 0;
    }
}

// The words of the frame that wants[] can ask for, bit 0 first.
static const uint16_t wanted_fields[] = {
    GUEST_LINEAR_ADDRESS,
    GUEST_PHYSICAL_ADDRESS,
    EXIT_INTERRUPTION_INFO,
    EXIT_INTERRUPTION_ERROR_CODE,
    IDT_VECTORING_INFO,
    IDT_VECTORING_ERROR_CODE,
    EXIT_INSTRUCTION_INFO,
};

// enter(vcpu) -> the handler for what happened: table[basic exit reason] after an
// exit, or one of the two slots that say why the guest was not entered.
static mp_obj_t vcpu_enter(mp_obj_t self_in) {
    if (MP_UNLIKELY(!mp_obj_is_exact_type(self_in, &vcpu_type))) {
        mp_raise_TypeError(MP_ERROR_TEXT("VCPU expected"));
    }
    vcpu_t *self = MP_OBJ_TO_PTR(self_in);
    vcpu_frame_t *f = self->frame;
    vcpu_need_loaded(self);
    if (f->verdict & 1) {
        vcpu_advance(self);
    }
    if (f->pending) {
        return self->table[VCPU_SLOT_PENDING];
    }
    if (f->dirty) {
        write_back(f);
    }

    __asm volatile("cli" ::: "memory");
    if (host_attention) {
        host_attention = 0;
        __asm volatile("sti" ::: "memory");
        return self->table[VCPU_SLOT_ATTENTION];
    }
    if (vmx_cpu.fpu_owner != f) {
        vmx_fpu_acquire(f);
    }
    uint64_t now = op_rdtsc();
    vcpu_count_ticks(f, now);
    if (f->timer_shift < 64) {
        uint64_t left = 0xffffffff;
        if (f->deadline != 0) {
            uint64_t ticks = f->deadline > now ? (f->deadline - now) >> f->timer_shift : 0;
            left = ticks < left ? ticks : left;
        }
        // Bochs 2.7 makes no exit for an interrupt while a guest that was entered with IF
        // clear has not set it. A millisecond loses no character of a 16550's FIFO.
        if (!(f->rflags & RFLAGS_IF)) {
            uint64_t most = (tsc_hz / 1000) >> f->timer_shift;
            left = left < most ? left : most;
        }
        if (left < f->owed >> f->timer_shift) {
            left = f->owed >> f->timer_shift;
        }
        vmx_put(PREEMPTION_TIMER_VALUE, left);
    }

    uint64_t launched = f->launched;
    int failed = vmx_guest(f);
    uint64_t exit_tsc = op_rdtsc();
    f->guest_ticks += exit_tsc - now;
    f->owed = f->owed > exit_tsc - now ? f->owed - (exit_tsc - now) : 0;
    f->entry_tsc = now;
    f->exit_tsc = exit_tsc;
    if (MP_UNLIKELY(failed)) {
        __asm volatile("sti" ::: "memory");
        vmx_raise(launched ? "VMRESUME" : "VMLAUNCH", failed);
    }

    uint64_t reason = vmx_get(EXIT_REASON);
    f->reason = reason;
    f->rip = vmx_get(GUEST_RIP);
    f->rflags = vmx_get(GUEST_RFLAGS);
    f->gpr[4] = vmx_get(GUEST_RSP);
    f->qualification = vmx_get(EXIT_QUALIFICATION);
    f->length = vmx_get(EXIT_INSTRUCTION_LENGTH);
    if (MP_UNLIKELY(reason & REASON_ENTRY_FAILURE)) {
        f->launched = launched;
    }
    uint64_t slot = reason & 0xffff;
    if (MP_UNLIKELY(slot >= VCPU_SLOT_ATTENTION)) {
        __asm volatile("sti" ::: "memory");
        mp_raise_msg_varg(
            &mp_type_RuntimeError, MP_ERROR_TEXT("exit reason %d is beyond the table"), (int)slot);
    }
    f->count[slot]++;
    uint64_t *word = &f->linear;
    for (uint32_t wants = f->wants[slot], i = 0; wants != 0; wants >>= 1, i++) {
        if (wants & 1) {
            word[i] = vmx_get(wanted_fields[i]);
        }
    }
    __asm volatile("sti" ::: "memory"); // a host interrupt that caused the exit is taken here
    return self->table[slot];
}
MP_DEFINE_CONST_FUN_OBJ_1(vcpu_enter_obj, vcpu_enter);
