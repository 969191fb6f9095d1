/* Code that another CPU has written (SDM Vol. 3A, "Handling Self- and Cross-Modifying Code"): signalled by a flag or an IPI, a CPU
 * serializes and runs what is new. */
#include "suite.h"
#include "window.h"

#define ROUNDS 100

static __attribute__((aligned(4096))) u8 code[4096];
static volatile u32 told, ran[CPUS_MAX];
static volatile u64 results[CPUS_MAX];
static volatile u32 wrong;

static u32 call(u8 *at) {
    u32 value;
    asm volatile("call *%1" : "=a"(value) : "r"(at) : "memory");
    return value;
}

/* mov eax, value; ret */
static void write_code(u8 *at, u32 value) {
    at[0] = 0xb8;
    *(volatile u32 *)(at + 1) = value;
    at[5] = 0xc3;
}

static void follow(void) {
    sti();
    for (u32 round = 1; round <= ROUNDS; round++) {
        if (!reached(&told, round)) {
            break;
        }
        cpuid(0, 0); /* serializes */
        if (call(code) != round) {
            __atomic_add_fetch(&wrong, 1, __ATOMIC_SEQ_CST);
        }
        ran[this_cpu()] = round;
    }
}

static bool run_in_handler(struct frame *frame) {
    (void)frame;
    results[this_cpu()] = call(code + 64);
    apic_write(APIC_EOI, 0);
    ran[this_cpu()]++;
    return true;
}

static u32 others_have_run(u32 count) {
    u32 late = 0;
    for (u32 number = 1; number < cpus; number++) {
        late += !reached(&ran[number], count);
    }
    return late;
}

/* `at` is the code, or the same memory by another address. */
static void by_flag(const char *name, u8 *at) {
    told = wrong = 0;
    for (u32 number = 1; number < cpus; number++) {
        ran[number] = 0;
        cpu_give(number, follow);
    }
    u32 late = 0;
    for (u32 round = 1; round <= ROUNDS && !late; round++) {
        write_code(at, round);
        told = round;
        late += others_have_run(round);
    }
    for (u32 number = 1; number < cpus; number++) {
        cpu_take(number);
    }
    check(name, wrong + late, 0);
}

void test_selfmod(void) {
    by_flag("new code runs after a flag and CPUID", code);
    window_init();
    window_ptes[7] = (word)code | PTE_P | PTE_W;
    invlpg(PAGE_AT(7));
    by_flag("written by another address", (u8 *)PAGE_AT(7));

    set_hook(VECTOR_IPI, run_in_handler);
    wrong = 0;
    for (u32 number = 1; number < cpus; number++) {
        ran[number] = 0;
    }
    for (u32 round = 1; round <= ROUNDS; round++) {
        write_code(code + 64, 0x10000 + round);
        apic_send(0xc0000 | APIC_ASSERT | VECTOR_IPI, 0);
        wrong += others_have_run(round);
        for (u32 number = 1; number < cpus; number++) {
            wrong += results[number] != 0x10000 + round;
        }
    }
    check("and in the handler of an IPI", wrong, 0);
    count_here(VECTOR_IPI);
}
