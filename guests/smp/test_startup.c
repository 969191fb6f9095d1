/* INIT and SIPI: what state a processor starts in, and what it ignores (SDM Vol. 3A, "Processor State After Reset", "MP
 * Initialization Protocol"). */
#include "suite.h"

#define DEASSERT_INIT 0x8500u /* ICR: level triggered, level 0 */
#define LAST          (cpus - 1)

static bool turns(u32 number) {
    return reached(&cpu[number].turns, cpu[number].turns + 1);
}

static bool stands(u32 number) {
    u32 before = cpu[number].turns;
    wait_ticks(2000000);
    return cpu[number].turns == before;
}

static void state(u32 page) {
    const struct at_start *got = cpu_at_start(page);
    check("CS is the page of the SIPI", got->cs, page >> 4);
    check("IP is 0", got->ip, 0);
    check("the other segments are 0",
        (u64)got->ds | got->es << 4 | got->fs << 8 | got->gs << 12 | got->ss, 0);
    check("flags are clear", got->flags, 2);
    check("CR0 keeps CD and NW, and ET", got->cr0 & ~(CR0_CD | CR0_NW), CR0_ET);
    check("CR2, CR3 and CR4 are 0", (u64)got->cr2 | got->cr3 | got->cr4, 0);
    check("EAX, EBX, ECX, ESI, EDI, EBP and ESP are 0",
        (u64)got->eax | got->ebx | got->ecx | got->esi | got->edi | got->ebp | got->esp, 0);
    excuse(native(), 0, "Bochs has 0 there");
    check("EDX is the CPU's signature", got->edx & 0xff0, cpuid(1, 0).eax & 0xff0);
    check("GDTR and IDTR are as after reset",
        (u64)got->gdt_base | got->idt_base | (u64)(got->gdt_limit & got->idt_limit) << 32,
        0xffff00000000);
}

static u64 kept[8];

static void set_msrs(void) {
    wrmsr(IA32_EFER, rdmsr(IA32_EFER) | EFER_SCE | EFER_NXE);
    wrmsr(IA32_SYSENTER_ESP, 0x1234);
    wrmsr(IA32_LSTAR, 0x5678);
    asm volatile("mov %0, %%dr0; mov %1, %%dr7" : : "r"(0x1000ull), "r"(0x402ull));
}

static void get_msrs(void) {
    u64 dr0, dr7;
    asm volatile("mov %%dr0, %0; mov %%dr7, %1" : "=r"(dr0), "=r"(dr7));
    kept[0] = rdmsr(IA32_EFER);
    kept[1] = rdmsr(IA32_APIC_BASE);
    kept[2] = dr0;
    kept[3] = dr7;
    kept[4] = apic_read(APIC_LVT_TIMER);
    kept[5] = read_cr4();
}

static void spoil_apic(void) {
    apic_write(APIC_TPR, 0x20);
    apic_write(APIC_LVT_TIMER, VECTOR_TIMER | APIC_PERIODIC | APIC_MASKED);
    apic_write(APIC_DCR, APIC_DIVIDE_1);
}

/* Runs in both of the local APIC's modes. */
static void all(void) {
    check("a CPU turns in its loop", turns(LAST), true);
    u32 started = cpu[LAST].started;
    cpu_sipi(LAST, TRAMPOLINE2);
    wait_ticks(500000);
    check("a SIPI to one that runs is ignored", cpu[LAST].started, started);
    check("and it goes on", turns(LAST), true);

    run_on(LAST, set_msrs);
    run_on(LAST, spoil_apic);
    count_here(VECTOR_IPI);
    forget_counts();
    cpu_init(LAST);
    check("INIT stops it", stands(LAST), true);
    apic_send(APIC_ASSERT | VECTOR_IPI, LAST);
    check("an IPI does not start it", stands(LAST), true);
    cpu_sipi(LAST, TRAMPOLINE2);
    check("a SIPI does", reached(&cpu[LAST].started, started + 1), true);
    check("and it takes work", turns(LAST), true);
    excuse(native(), 1, "Bochs and QEMU keep it until the APIC is on again");
    check("the IPI was not kept", cpu[LAST].came[VECTOR_IPI], 0);
    state(TRAMPOLINE2);
    run_on(LAST, get_msrs);
    check("EFER was 0 at its start", kept[0] & (EFER_SCE | EFER_NXE | EFER_LME), EFER_LME);
    excuse(native(), 0x800, "Bochs goes back to xAPIC mode");
    check("APIC_BASE is kept, and it is no BSP", kept[1] & 0xf00, apic_is_x2() ? 0xc00 : 0x800);
    check("debug registers are as after reset", kept[2] | kept[3] << 32, 0x40000000000);
    check("its LVT was reset", kept[4], APIC_MASKED);
    check("CR4 has what its start has set", kept[5], CR4_PAE);

    /* Level-triggered de-assertion is a matter of older APICs' arbitration IDs. */
    if (!apic_is_x2()) {
        started = cpu[LAST].started;
        apic_send(DEASSERT_INIT | 0x80000, 0); /* all including self */
        wait_ticks(500000);
        check("INIT de-asserted stops none", turns(LAST), true);
        check("and restarts none", cpu[LAST].started, started);
    }

    bool whole = true;
    for (u32 turn = 0; turn < 5 && whole; turn++) {
        whole = cpu_start(LAST, turn & 1 ? TRAMPOLINE : TRAMPOLINE2);
    }
    check("it starts again and again", whole, true);
}

/* All at once, as kernels with parallel bring-up and firmware do it. */
static void broadcast(void) {
    u32 before[CPUS_MAX];
    for (u32 number = 1; number < cpus; number++) {
        before[number] = cpu[number].started;
    }
    apic_send(0xc0500 | APIC_ASSERT, 0); /* INIT to all excluding self */
    wait_ticks(1000000);
    apic_send(0xc0600 | APIC_ASSERT | TRAMPOLINE >> 12, 0);
    wait_ticks(20000);
    u32 came = 1;
    for (u32 number = 1; number < cpus; number++) {
        came |= reached(&cpu[number].started, before[number] + 1) << number;
    }
    check("INIT and SIPI to all but self start all", came, ALL);
    run_everywhere(barrier);
    check("which then work together", where(NULL), ALL);
}

void test_startup(void) {
    all();
    broadcast();
}

void test_x2_startup(void) {
    if (!apic_is_x2()) {
        skip("all", "no x2APIC");
        return;
    }
    all();
    broadcast();
}
