/* All CPUs go over to x2APIC mode (SDM Vol. 3A, "Extended XAPIC (x2APIC)"). */
#include "suite.h"

static void go_over(void) {
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) | X2APIC_ENABLE);
}

static bool id_is_number(void) {
    return apic_read(APIC_ID) == this_cpu();
}

void test_x2apic(void) {
    if (!(cpuid(1, 0).ecx & CPUID_1_ECX_X2APIC)) {
        skip("all", "no x2APIC");
        return;
    }
    run_on(cpus - 1, go_over);
    check("the mode is each CPU's own", where(apic_is_x2), 1u << (cpus - 1));
    for (u32 number = 0; number < cpus; number++) {
        run_on(number, go_over);
    }
    check("all are in it", where(apic_is_x2), ALL);
    check("the IDs are 32 bits wide", where(id_is_number), ALL);
}
