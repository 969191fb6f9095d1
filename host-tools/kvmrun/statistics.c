/* KVM's binary statistics of the vCPUs (KVM_GET_STATS_FD). */
#include "kvmrun.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void read_at(int file, void *target, size_t size, off_t offset) {
    if (pread(file, target, size, offset) != (ssize_t)size) {
        fail("KVM's statistics");
    }
}

void statistics_print(const struct machine *machine) {
    int file = machine->vcpus[0].statistics; /* they are all laid out alike */
    struct kvm_stats_header header;
    read_at(file, &header, sizeof(header), 0);
    size_t size = sizeof(struct kvm_stats_desc) + header.name_size;
    struct kvm_stats_desc *descriptor = malloc(size);
    for (uint32_t i = 0; i < header.num_desc; i++) {
        read_at(file, descriptor, size, header.desc_offset + i * size);
        if (descriptor->size != 1) {
            continue; /* histograms */
        }
        uint64_t sum = 0;
        for (unsigned number = 0; number < machine->cpus; number++) {
            uint64_t value;
            read_at(machine->vcpus[number].statistics, &value, sizeof(value),
                header.data_offset + descriptor->offset);
            sum += value;
        }
        if (sum) {
            printf("kvm: %s %llu\n", descriptor->name, (unsigned long long)sum);
        }
    }
    free(descriptor);
}
