/* The suite: one row a subject, in the order of running. A subject is a function test_NAME. */
#include "suite.h"

#define ROW(name)                                                                                  \
    { #name, test_##name }

/* clang-format off */
const struct subject suite[] = {
    ROW(cpuid),
    ROW(msr),
    ROW(ports),
    ROW(strings),
    ROW(control),
    ROW(exceptions),
    ROW(interrupts),
    ROW(pages),
    ROW(operands),
    ROW(ring3),
    ROW(tasks),
    ROW(modes),
    ROW(selfmod),
    ROW(vmx),
    ROW(fpu),
    ROW(debug),
    ROW(watch),
    ROW(misc),
    ROW(xapic),
    ROW(x2apic), /* last: there is no way back */
};
/* clang-format on */

const u32 suite_size = COUNT(suite);
