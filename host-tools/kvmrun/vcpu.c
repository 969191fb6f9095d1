/* The vCPUs: all of a machine that KVM offers in CPUID, and the registers of the file. */
#include "kvmrun.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define LEAVES       256
#define TOPOLOGY     0x0b /* these two tell of packages and cores */
#define TOPOLOGY_V2  0x1f
#define HTT          (1u << 28) /* CPUID.1:EDX */
#define HYPERVISOR   (1u << 31) /* CPUID.1:ECX */
#define TSC_DEADLINE (1u << 24)
#define PARAVIRTUAL  0x4000 /* upper half of the leaves in which KVM offers what no machine has */
#define IA32_TSC     0x10

static unsigned shift_of(unsigned count) {
    unsigned shift = 0;
    while (1u << shift < count) {
        shift++;
    }
    return shift;
}

/* One package of cores with one thread each, as the monitor's guests have it. */
static void add_topology(struct kvm_cpuid2 *cpuid, unsigned cpus, unsigned number) {
    struct kvm_cpuid_entry2 levels[] = {
        {.index = 0, .eax = 0, .ebx = 1, .ecx = 1 << 8},
        {.index = 1, .eax = shift_of(cpus), .ebx = cpus, .ecx = 2 << 8 | 1},
        {.index = 2, .ecx = 2},
    };
    for (unsigned level = 0; level < sizeof(levels) / sizeof(levels[0]); level++) {
        levels[level].function = TOPOLOGY;
        levels[level].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        levels[level].edx = number;
        cpuid->entries[cpuid->nent++] = levels[level];
    }
}

static void set_cpuid(struct machine *machine, unsigned number) {
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + (LEAVES + 3) * sizeof(cpuid->entries[0]));
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
            entry.ebx = (entry.ebx & 0xffff) | machine->cpus << 16 | number << 24;
            entry.edx = machine->cpus > 1 ? entry.edx | HTT : entry.edx & ~HTT;
        }
        if (entry.function == 4 && entry.eax & 31) {
            entry.eax = (entry.eax & 0x3fff) | (machine->cpus - 1) << 26;
        }
        bool topology = entry.function == TOPOLOGY || entry.function == TOPOLOGY_V2;
        if (entry.function >> 16 != PARAVIRTUAL && !topology) {
            cpuid->entries[count++] = entry;
        }
    }
    cpuid->nent = count;
    add_topology(cpuid, machine->cpus, number);
    if (ioctl(machine->vcpus[number].file, KVM_SET_CPUID2, cpuid) < 0) {
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
    if (ioctl(machine->vcpus[0].file, KVM_GET_SREGS, &registers) < 0) {
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
    if (ioctl(machine->vcpus[0].file, KVM_SET_SREGS, &registers) < 0) {
        fail("KVM_SET_SREGS");
    }
}

static void make(struct machine *machine, unsigned number) {
    struct vcpu *vcpu = &machine->vcpus[number];
    vcpu->file = ioctl(machine->vm, KVM_CREATE_VCPU, number);
    int size = ioctl(machine->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (vcpu->file < 0 || size < 0) {
        fail("KVM_CREATE_VCPU");
    }
    vcpu->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->file, 0);
    if (vcpu->run == MAP_FAILED) {
        fail("the vCPU's page");
    }
    vcpu->statistics = ioctl(vcpu->file, KVM_GET_STATS_FD, NULL);
    if (vcpu->statistics < 0) {
        fail("KVM_GET_STATS_FD");
    }
    set_cpuid(machine, number);
}

void vcpus_make(struct machine *machine, const struct image_header *header) {
    if (header->cpus < 1 || header->cpus > VCPUS_MAX) {
        errno = EINVAL;
        fail("the number of vCPUs");
    }
    machine->cpus = header->cpus;
    for (unsigned number = 0; number < machine->cpus; number++) {
        make(machine, number);
    }
    set_system_registers(machine, header);
    struct kvm_regs registers = {.rip = header->rip,
        .rsp = header->rsp,
        .rflags = header->rflags,
        .rax = header->rax,
        .rbx = header->rbx,
        .rsi = header->rsi};
    if (ioctl(machine->vcpus[0].file, KVM_SET_REGS, &registers) < 0) {
        fail("KVM_SET_REGS");
    }
}

uint64_t vcpu_tsc(const struct machine *machine) {
    struct {
        struct kvm_msrs head;
        struct kvm_msr_entry entry;
    } msrs = {.head.nmsrs = 1, .entry.index = IA32_TSC};
    if (ioctl(machine->vcpus[0].file, KVM_GET_MSRS, &msrs) != 1) {
        fail("KVM_GET_MSRS");
    }
    return msrs.entry.data;
}
