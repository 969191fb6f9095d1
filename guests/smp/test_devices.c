/* Devices that all CPUs use at once: locked instructions on their memory are atomic, and ports do not mix. */
#include "chips.h"
#include "suite.h"

#define IOAPIC 0xfec00000u
#define INDEX  (*(volatile u32 *)(word)IOAPIC) /* IOREGSEL, 8 bits that can be written and read */
#define TURNS  60

static volatile u32 wrong;

static void add_to_index(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        asm volatile("lock addl $1, %0" : "+m"(INDEX));
    }
}

static void xadd_to_index(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 one = 1;
        asm volatile("lock xaddl %0, %1" : "+r"(one), "+m"(INDEX));
    }
}

static void cmpxchg_index(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 old = INDEX;
        bool done;
        do {
            asm volatile("lock cmpxchgl %3, %1; sete %2"
                         : "+a"(old), "+m"(INDEX), "=q"(done)
                         : "r"((old + 1) & 0xff));
        } while (!done);
    }
}

static volatile u32 guarded, crowded, inside;

/* The register as a lock: 0 is free. */
static void lock_by_index(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 taken;
        do {
            taken = 1;
            asm volatile("xchgl %0, %1" : "+r"(taken), "+m"(INDEX));
            if (taken) {
                pause();
            }
        } while (taken);
        crowded += __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST) != 1;
        guarded = guarded + 1;
        __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
        INDEX = 0;
    }
}

static void own_apic(void) {
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 mine = this_cpu() << 4 | (turn & 15);
        apic_write(APIC_TPR, mine);
        if (apic_read(APIC_TPR) != mine || apic_id() != this_cpu()) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
    }
    apic_write(APIC_TPR, 0);
}

/* Ports that one CPU each owns: a scratch register of the UART for CPU 0, cells of the clock's RAM under a lock for all. */
static u32 lock;

static void cells(void) {
    u8 cell = 0x50 + this_cpu();
    barrier();
    for (u32 turn = 0; turn < TURNS; turn++) {
        while (__atomic_exchange_n(&lock, 1, __ATOMIC_SEQ_CST)) {
            pause();
        }
        rtc_write(cell, turn);
        bool right = rtc_read(cell) == turn;
        __atomic_store_n(&lock, 0, __ATOMIC_SEQ_CST);
        if (!right) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
    }
}

static void index_check(const char *name, void (*function)(void)) {
    INDEX = 0;
    run_everywhere(function);
    check(name, INDEX & 0xff, TURNS * cpus & 0xff);
}

void test_devices(void) {
    index_check("LOCK ADD", add_to_index);
    index_check("LOCK XADD", xadd_to_index);
    index_check("LOCK CMPXCHG", cmpxchg_index);
    INDEX = 0;
    run_everywhere(lock_by_index);
    check("XCHG as a lock", guarded, TURNS * cpus);
    check("never two inside", crowded, 0);
    run_everywhere(own_apic);
    check("each has its own local APIC", wrong, 0);
    wrong = 0;
    run_everywhere(cells);
    check("the clock's memory under a lock", wrong, 0);
}
