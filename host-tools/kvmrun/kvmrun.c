/* kvmrun [-u] FILE [PRIORITY]: runs the machine that FILE describes under KVM, until it switches itself off.
 *
 * With -u some MSRs and INT3 are answered here, as a monitor's policies would (user.c).
 * With a PRIORITY it runs under SCHED_FIFO, and so does KVM's thread for its 8254, one above.
 * What KVM has in the kernel is used: local APIC, I/O APIC, 8259s, 8254. The rest of the PC is in devices.c. At the end it
 * prints the guest's TSC at the first entry, and what KVM counted.
 */
#include "kvmrun.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define TSS          0xfffbd000u /* three pages that KVM needs, and one, where no device is */
#define IDENTITY_MAP 0xfffbc000ull

void fail(const char *what) {
    fprintf(stderr, "kvmrun: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void make(struct machine *machine) {
    machine->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm < 0) {
        fail("/dev/kvm");
    }
    machine->vm = ioctl(machine->kvm, KVM_CREATE_VM, 0);
    if (machine->vm < 0) {
        fail("KVM_CREATE_VM");
    }
    uint64_t identity_map = IDENTITY_MAP;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    if (ioctl(machine->vm, KVM_SET_TSS_ADDR, TSS) < 0 ||
        ioctl(machine->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
        ioctl(machine->vm, KVM_CREATE_IRQCHIP, 0) < 0 ||
        ioctl(machine->vm, KVM_CREATE_PIT2, &pit) < 0) {
        fail("the machine's chips");
    }
}

static void set_fifo(int task, int priority) {
    struct sched_param param = {.sched_priority = priority};
    if (sched_setscheduler(task, SCHED_FIFO, &param) < 0) {
        fail("SCHED_FIFO");
    }
}

/* KVM names the thread of a machine's 8254 after the process that made it. */
static void raise_priority(int priority) {
    char wanted[32], path[300], name[32];
    snprintf(wanted, sizeof(wanted), "kvm-pit/%d\n", (int)getpid());
    bool found = false;
    DIR *tasks = opendir("/proc");
    for (struct dirent *entry; tasks && (entry = readdir(tasks));) {
        snprintf(path, sizeof(path), "/proc/%s/comm", entry->d_name);
        FILE *comm = atoi(entry->d_name) ? fopen(path, "r") : NULL;
        if (comm && fgets(name, sizeof(name), comm) && !strcmp(name, wanted)) {
            set_fifo(atoi(entry->d_name), priority + 1);
            found = true;
        }
        if (comm) {
            fclose(comm);
        }
    }
    if (!found) {
        errno = ESRCH;
        fail("KVM's thread for the 8254");
    }
    closedir(tasks);
    set_fifo(0, priority);
}

static void add_memory(struct machine *machine) {
    struct kvm_userspace_memory_region region = {
        .memory_size = machine->size, .userspace_addr = (uintptr_t)machine->memory};
    if (ioctl(machine->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
        fail("KVM_SET_USER_MEMORY_REGION");
    }
}

static pthread_mutex_t devices = PTHREAD_MUTEX_INITIALIZER;

/* False when the guest has switched itself off. */
static bool exited(struct machine *machine, const struct vcpu *vcpu) {
    bool on = true;
    pthread_mutex_lock(&devices);
    switch (vcpu->run->exit_reason) {
        case KVM_EXIT_IO:
            on = device_port(machine, vcpu->run);
            break;
        case KVM_EXIT_MMIO:
            device_memory(vcpu->run);
            break;
        case KVM_EXIT_X86_RDMSR:
        case KVM_EXIT_X86_WRMSR:
            user_msr(vcpu->run);
            break;
        case KVM_EXIT_DEBUG:
            user_breakpoint(machine, vcpu);
            break;
        case KVM_EXIT_INTR:
            break;
        case KVM_EXIT_SHUTDOWN:
            fprintf(stderr, "kvmrun: the guest has shut down by a triple fault\n");
            exit(1);
        default:
            fprintf(stderr, "kvmrun: exit reason %u of KVM_RUN\n", vcpu->run->exit_reason);
            exit(1);
    }
    pthread_mutex_unlock(&devices);
    return on;
}

/* Whichever vCPU switches the machine off: main() goes on then. */
static sem_t off;

static void run(struct machine *machine, const struct vcpu *vcpu) {
    do {
        vcpu->run->exit_reason = KVM_EXIT_INTR; /* what an interrupted KVM_RUN leaves as it was */
        if (ioctl(vcpu->file, KVM_RUN, 0) < 0 && errno != EINTR && errno != EAGAIN) {
            fail("KVM_RUN");
        }
    } while (exited(machine, vcpu));
    sem_post(&off);
}

struct thread {
    struct machine *machine;
    const struct vcpu *vcpu;
};

static void *run_thread(void *argument) {
    const struct thread *thread = argument;
    run(thread->machine, thread->vcpu);
    return NULL;
}

/* CPU 0 runs in this thread where it is the only one. */
static void run_all(struct machine *machine) {
    if (machine->cpus == 1) {
        run(machine, &machine->vcpus[0]);
        return;
    }
    static struct thread threads[VCPUS_MAX];
    sem_init(&off, 0, 0);
    for (unsigned number = 0; number < machine->cpus; number++) {
        pthread_t id;
        threads[number] = (struct thread){machine, &machine->vcpus[number]};
        if (pthread_create(&id, NULL, run_thread, &threads[number])) {
            fail("a thread for a vCPU");
        }
    }
    while (sem_wait(&off) < 0) {
    }
    pthread_mutex_lock(&devices); /* the others print nothing any more */
}

int main(int count, char **arguments) {
    bool user = count > 1 && !strcmp(arguments[1], "-u");
    arguments += user;
    count -= user;
    if (count != 2 && count != 3) {
        fprintf(stderr, "usage: kvmrun [-u] FILE [PRIORITY]\n");
        return 2;
    }
    struct machine machine = {0};
    make(&machine);
    struct image_header header = image_read(&machine, arguments[1]);
    add_memory(&machine);
    vcpus_make(&machine, &header);
    if (user) {
        user_take(&machine);
    }
    if (count == 3) {
        raise_priority(atoi(arguments[2]));
    }
    uint64_t entered = vcpu_tsc(&machine);
    run_all(&machine);
    printf("kvm: entered_at %llu\n", (unsigned long long)entered);
    statistics_print(&machine);
    fflush(stdout);
    return 0;
}
