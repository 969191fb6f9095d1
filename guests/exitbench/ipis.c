/* Rows of the local APIC: by its page, by the MSRs of x2APIC mode, and switched off. */
#include "apic.h"
#include "bench.h"

#define APIC_GLOBAL_ENABLE 0x800u /* in IA32_APIC_BASE */

static u64 to_self; /* ICR: to this APIC by its ID */

/* After an IPI that waits because IF is clear. */
static void take_ipi(void) {
    sti();
    while (!ipi_came) {
    }
    cli();
}

OPERATION(xapic_read, (void)MMIO(XAPIC + APIC_VERSION))
OPERATION(xapic_eoi, MMIO(XAPIC + APIC_EOI) = 0)
STEPS(xapic_icr, ipi_came = false, MMIO(XAPIC + APIC_ICR) = APIC_SELF | VECTOR_IPI, take_ipi())

OPERATION(x2apic_read, rdmsr(X2APIC(APIC_VERSION)))
OPERATION(x2apic_eoi, wrmsr(X2APIC(APIC_EOI), 0))
OPERATION(x2apic_ipi, {
    ipi_came = false;
    wrmsr(X2APIC(APIC_SELF_IPI), VECTOR_IPI);
    sti();
    while (!ipi_came) {
    }
    cli();
})
STEPS(x2apic_icr, ipi_came = false, wrmsr(X2APIC(APIC_ICR), to_self), take_ipi())
STEPS(
    x2apic_icr_nop, ipi_came = false,
    {
        wrmsr(X2APIC(APIC_ICR), to_self);
        asm volatile("sti; nop" : : : "memory");
    },
    take_ipi())
STEPS(
    x2apic_icr_hlt, ipi_came = false,
    {
        wrmsr(X2APIC(APIC_ICR), to_self);
        asm volatile("sti; hlt" : : : "memory");
    },
    take_ipi())

OPERATION(xapic_off, (void)MMIO(XAPIC + APIC_VERSION))

static const char *icr_begin(void) {
    const char *reason = x2apic_on();
    if (!reason) {
        to_self = rdmsr(X2APIC(APIC_ID)) << 32 | APIC_ASSERT | VECTOR_IPI;
    }
    return reason;
}

/* For the rest of the pass. */
static const char *off_begin(void) {
    wrmsr(IA32_APIC_BASE, rdmsr(IA32_APIC_BASE) & ~(u64)(APIC_GLOBAL_ENABLE | X2APIC_ENABLE));
    return NULL;
}

static const struct row xapic_rows[] = {
    ROW(xapic_read, .begin = xapic_on),
    ROW(xapic_eoi, .begin = xapic_on),
    ROW(xapic_icr, .begin = xapic_on),
};
GROUP(xapic);

static const struct row x2apic_rows[] = {
    ROW(x2apic_read, .begin = x2apic_on),
    ROW(x2apic_eoi, .begin = x2apic_on),
    ROW(x2apic_ipi, .begin = x2apic_on),
    ROW(x2apic_icr, .begin = icr_begin),
    ROW(x2apic_icr_nop, .begin = icr_begin),
    ROW(x2apic_icr_hlt, .begin = icr_begin),
};
GROUP(x2apic);

static const struct row off_rows[] = {
    ROW(xapic_off, .begin = off_begin),
};
GROUP(off);
