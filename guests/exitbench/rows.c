/* The table of rows, and those that are one instruction. */
#include "apic.h"
#include "bench.h"

#define X2APIC(offset) (0x800 + ((offset) >> 4))
#define UNKNOWN_CALL   0x7fff0001u /* a VMCALL number that nobody has */
#define POLICY_PORT    0x5e0 /* nothing is there but the bench's policy or program */
#define POLICY_MMIO    0xc8000000u
#define POLICY_MEMORY  0xc8001000u
#define IOAPIC_SELECT  0xfec00000u
#define IOAPIC_WINDOW  0xfec00010u
#define IOAPIC_VERSION 1
#define HYPERVISOR     (1u << 31) /* CPUID.1:ECX */
#define MMIO(gpa)      (*(volatile u32 *)(word)(gpa))

static u64 adjust, cr4;
static u16 pm_timer;

OPERATION(empty, )
OPERATION(cpuid, cpuid(0, 0))
OPERATION(rdmsr, rdmsr(IA32_APIC_BASE))
OPERATION(rdmsr_adjust, rdmsr(IA32_TSC_ADJUST))
OPERATION(wrmsr, wrmsr(IA32_TSC_ADJUST, adjust))
OPERATION(vmcall, asm volatile("vmcall" : : "a"(UNKNOWN_CALL) : "memory"))
OPERATION(in_pic, inb(0x21))
OPERATION(out_pic, outb(0x21, 0xff))
OPERATION(in_pit, inb(0x40))
OPERATION(in_uart, inb(0x3fd))
OPERATION(in_pm_timer, inl(pm_timer))
OPERATION(in_nobody, inb(0x5f0))
OPERATION(out_policy, outb(POLICY_PORT, i))
OPERATION(mmio_policy, (void)MMIO(POLICY_MMIO))
OPERATION(memory_policy, (void)MMIO(POLICY_MEMORY))
OPERATION(ioapic_read, (void)MMIO(IOAPIC_WINDOW))
OPERATION(cr4_write, write_cr4(cr4 ^ (i & 1 ? CR4_SMEP : 0)))
OPERATION(wbinvd, asm volatile("wbinvd" : : : "memory"))
OPERATION(xapic_read, (void)MMIO(0xfee00000u + APIC_VERSION))
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

static const char *adjust_begin(void) {
    if (!(cpuid_leaf(7, 0).ebx & CPUID_7_EBX_TSC_ADJUST)) {
        return "the CPU has no IA32_TSC_ADJUST";
    }
    adjust = rdmsr(IA32_TSC_ADJUST);
    return NULL;
}

static const char *hypervisor_begin(void) {
    return cpuid(1, 0).ecx & HYPERVISOR ? NULL : "no monitor is here";
}

static const char *pm_timer_begin(void) {
    pm_timer = option_number("pm_timer", 0);
    return pm_timer ? NULL : "no PM timer was named";
}

static const char *pit_begin(void) {
    outb(0x43, 0x34); /* counter 0: low, high, mode 2 */
    outb(0x40, 0);
    outb(0x40, 0);
    return NULL;
}

static void pit_end(void) {
    outb(0x43, 0x30); /* mode 0 without a count: stopped */
}

static const char *ioapic_begin(void) {
    MMIO(IOAPIC_SELECT) = IOAPIC_VERSION;
    return NULL;
}

static const char *smep_begin(void) {
    cr4 = read_cr4();
    return cpuid_leaf(7, 0).ebx & CPUID_7_EBX_SMEP ? NULL : "the CPU has no SMEP";
}

static void smep_end(void) {
    write_cr4(cr4);
}

static const char *xapic_begin(void) {
    return apic_is_x2() ? "the local APIC is in x2APIC mode already" : NULL;
}

#define ROW(row, ...)                                                                              \
    { .name = #row, .measure = row##_measure, .once = row##_once, __VA_ARGS__ }

/* Those of x2APIC mode come last. */
const struct row rows[] = {
    ROW(empty),
    ROW(page_first_touch, .begin = touch_begin),
    ROW(cpuid),
    ROW(rdmsr),
    ROW(rdmsr_adjust, .begin = adjust_begin),
    ROW(wrmsr, .begin = adjust_begin),
    ROW(vmcall, .begin = hypervisor_begin),
    ROW(wbinvd),
    ROW(cr4_write, .begin = smep_begin, .end = smep_end),
    ROW(in_pic),
    ROW(out_pic),
    ROW(in_pit, .begin = pit_begin, .end = pit_end),
    ROW(in_uart),
    ROW(in_pm_timer, .begin = pm_timer_begin),
    ROW(in_nobody),
    ROW(out_policy),
    ROW(mmio_policy),
    ROW(memory_policy),
    ROW(ioapic_read, .begin = ioapic_begin),
    ROW(xapic_read, .begin = xapic_begin),
    ROW(x2apic_read, .begin = x2apic_on),
    ROW(x2apic_eoi, .begin = x2apic_on),
    ROW(x2apic_ipi, .begin = x2apic_on),
    ROW(tsc_deadline_arm, .begin = deadline_begin, .end = deadline_end),
    ROW(late_spin, .begin = deadline_begin, .end = deadline_end, .whole = true),
    ROW(late_hlt, .begin = deadline_begin, .end = deadline_end, .whole = true),
};
const u32 row_count = COUNT(rows);
