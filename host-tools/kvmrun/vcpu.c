/* The vCPU: all of a machine that KVM offers in CPUID, and the registers of the file. */
#include "kvmrun.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define LEAVES       256
#define HYPERVISOR   (1u << 31) /* CPUID.1:ECX */
#define TSC_DEADLINE (1u << 24)
#define PARAVIRTUAL  0x4000 /* upper half of the leaves in which KVM offers what no machine has */
#define IA32_TSC     0x10

static void set_cpuid(struct machine *machine) {
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + LEAVES * sizeof(cpuid->entries[0]));
    cpuid->nent = LEAVES;
    if (ioctl(machine->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
        fail("KVM_GET_SUPPORTED_CPUID");
    }
    bool deadline = ioctl(machine->vm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    uint32_t count = 0;
    for (uint32_t leaf = 0; leaf < cpuid->nent; leaf++) {
        struct kvm_cpuid_entry2 entry = cpuid->entries[leaf];
        if (entry.function == 1) {
            entry.ecx |= HYPERVISOR | (deadline ? TSC_DEADLINE : 0);
        }
        if (entry.function >> 16 != PARAVIRTUAL) {
            cpuid->entries[count++] = entry;
        }
    }
    cpuid->nent = count;
    if (ioctl(machine->vcpu, KVM_SET_CPUID2, cpuid) < 0) {
        fail("KVM_SET_CPUID2");
    }
    free(cpuid);
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool is_long) {
    return (struct kvm_segment){.limit = 0xffffffff,
        .selector = selector,
        .type = type,
        .present = 1,
        .s = 1,
        .db = !is_long,
        .l = is_long,
        .g = 1};
}

static void set_system_registers(struct machine *machine, const struct image_header *header) {
    struct kvm_sregs registers;
    if (ioctl(machine->vcpu, KVM_GET_SREGS, &registers) < 0) {
        fail("KVM_GET_SREGS");
    }
    registers.cs = segment(header->code_selector, 0xb, header->is_long);
    registers.ds = segment(header->data_selector, 3, false);
    registers.es = registers.fs = registers.gs = registers.ss = registers.ds;
    registers.gdt.base = header->gdt_base;
    registers.gdt.limit = header->gdt_limit;
    registers.cr0 = header->cr0;
    registers.cr3 = header->cr3;
    registers.cr4 = header->cr4;
    registers.efer = header->efer;
    if (ioctl(machine->vcpu, KVM_SET_SREGS, &registers) < 0) {
        fail("KVM_SET_SREGS");
    }
}

void vcpu_make(struct machine *machine, const struct image_header *header) {
    machine->vcpu = ioctl(machine->vm, KVM_CREATE_VCPU, 0);
    int size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (machine->vcpu < 0 || size < 0) {
        fail("KVM_CREATE_VCPU");
    }
    machine->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, machine->vcpu, 0);
    if (machine->run == MAP_FAILED) {
        fail("the vCPU's page");
    }
    set_cpuid(machine);
    set_system_registers(machine, header);
    struct kvm_regs registers = {.rip = header->rip,
        .rsp = header->rsp,
        .rflags = header->rflags,
        .rax = header->rax,
        .rbx = header->rbx,
        .rsi = header->rsi};
    if (ioctl(machine->vcpu, KVM_SET_REGS, &registers) < 0) {
        fail("KVM_SET_REGS");
    }
}

uint64_t vcpu_tsc(const struct machine *machine) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } msrs = {.head.nmsrs = 1, .entry.index = IA32_TSC};
    if (ioctl(machine->vcpu, KVM_GET_MSRS, &msrs) != 1) {
        fail("KVM_GET_MSRS");
    }
    return msrs.entry.data;
}
