/* The parts of kvmrun: one virtual machine of /dev/kvm, whose first state a file describes. Each of its vCPUs has a thread. */
#ifndef KVMRUN_H
#define KVMRUN_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define VCPUS_MAX 16

struct vcpu {
    int file;
    int statistics; /* opened early: KVM gives it for no vCPU that runs */
    struct kvm_run *run;
};

struct machine {
    int kvm, vm;
    unsigned cpus;
    struct vcpu vcpus[VCPUS_MAX]; /* by their APIC IDs; 0 boots */
    uint8_t *memory;
    uint64_t size;
};

/* What the file begins with (host-tools/pcanel/bench/machine_file.py writes it); then come `chunks` times gpa, size and
 * bytes. */
struct image_header {
    char magic[8];
    uint64_t size; /* of the machine's memory, in bytes */
    uint64_t chunks;
    uint64_t rip, rsp, rflags, rax, rbx, rsi;
    uint64_t cr0, cr3, cr4, efer;
    uint64_t gdt_base, gdt_limit;
    uint64_t code_selector, data_selector; /* flat segments */
    uint64_t is_long; /* the code segment is a 64-bit one */
    uint64_t cpus;
    uint64_t large_pages; /* back the memory with 2-MiB pages, else with 4-KiB pages */
};

void fail(const char *what) __attribute__((noreturn));

/* image.c: fills memory that image_read() maps; returns the header. */
struct image_header image_read(struct machine *machine, const char *path);

/* vcpu.c: makes all; those behind the first wait for INIT and SIPI. */
void vcpus_make(struct machine *machine, const struct image_header *header);
uint64_t vcpu_tsc(const struct machine *machine);

/* devices.c: a 16550 at 3F8H whose output is the standard output, the PM timer, power off, a device in memory.
 * False when the guest has switched itself off. */
bool device_port(struct machine *machine, struct kvm_run *run);
void device_memory(struct kvm_run *run);

/* user.c: takes MSRs and INT3 from KVM, and answers their exits: MSRs as at reset, a debugger's breakpoints,
 * and the guest's own #BP. */
void user_take(const struct machine *machine);
void user_msr(struct kvm_run *run);
void user_breakpoint(const struct machine *machine, const struct vcpu *vcpu);

/* statistics.c: KVM's own counts, of all vCPUs together, one `kvm: NAME COUNT` a line, those that are not 0. */
void statistics_print(const struct machine *machine);

#endif
