/* What KVM leaves to user space on request (`kvmrun -u`): two MSRs, and INT3. The peers of a monitor's policies.
 *
 * An INT3 at one of two functions of the bench's guest is a debugger's: the instruction under it is put back, stepped and
 * covered again. */
#include "kvmrun.h"

#include <sys/ioctl.h>

#define IA32_APIC_BASE  0x1b
#define IA32_TSC_ADJUST 0x3b
#define APIC_BASE_RESET 0xfee00900 /* BSP, enabled */
#define HIDDEN_NOP      0x00f02000 /* as in guests/exitbench/memory.c */
#define HIDDEN_PUSH     0x00f03000
#define NOP             0x90
#define PUSH_RBP        0x55
#define INT3            0xcc
#define BP_VECTOR       3

void user_take(const struct machine *machine) {
    static uint8_t denied[8]; /* a bit that is clear: to user space */
    struct kvm_enable_cap exits = {
        .cap = KVM_CAP_X86_USER_SPACE_MSR, .args = {KVM_MSR_EXIT_REASON_FILTER}};
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    const uint32_t taken[] = {IA32_APIC_BASE, IA32_TSC_ADJUST};
    for (unsigned i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        filter.ranges[i] =
            (struct kvm_msr_filter_range){.flags = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE,
                .nmsrs = 1,
                .base = taken[i],
                .bitmap = denied};
    }
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP};
    if (ioctl(machine->vm, KVM_ENABLE_CAP, &exits) < 0 ||
        ioctl(machine->vm, KVM_X86_SET_MSR_FILTER, &filter) < 0) {
        fail("MSRs to user space");
    }
    for (unsigned number = 0; number < machine->cpus; number++) {
        if (ioctl(machine->vcpus[number].file, KVM_SET_GUEST_DEBUG, &debug) < 0) {
            fail("breakpoints to user space");
        }
    }
}

void user_msr(struct kvm_run *run) {
    if (run->exit_reason == KVM_EXIT_X86_RDMSR) {
        run->msr.data = run->msr.index == IA32_APIC_BASE ? APIC_BASE_RESET : 0;
    }
    run->msr.error = 0;
}

static void set_debug(const struct vcpu *vcpu, uint32_t more) {
    struct kvm_guest_debug debug = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP | more};
    if (ioctl(vcpu->file, KVM_SET_GUEST_DEBUG, &debug) < 0) {
        fail("KVM_SET_GUEST_DEBUG");
    }
}

void user_breakpoint(const struct machine *machine, const struct vcpu *vcpu) {
    static uint64_t stepped; /* the address of a breakpoint whose instruction is being stepped */
    const struct kvm_debug_exit_arch *stop = &vcpu->run->debug.arch;
    if (stop->exception != BP_VECTOR) {
        machine->memory[stepped] = INT3;
        set_debug(vcpu, 0);
    } else if (stop->pc == HIDDEN_NOP || stop->pc == HIDDEN_PUSH) {
        stepped = stop->pc;
        machine->memory[stepped] = stepped == HIDDEN_NOP ? NOP : PUSH_RBP;
        set_debug(vcpu, KVM_GUESTDBG_SINGLESTEP);
    } else {
        set_debug(vcpu, KVM_GUESTDBG_INJECT_BP);
    }
}
