/* Sets the machine up, starts its processors and runs the suite.
 *
 * On the command line: only=NAME,... (default all), skip=NAME,..., cpus=N (the number that the tables have to name).
 */
#include "chips.h"
#include "console.h"
#include "descriptors.h"
#include "options.h"
#include "report.h"
#include "suite.h"
#include "tables.h"

#define ROW(name)                                                                                  \
    { #name, test_##name }

/* clang-format off */
static const struct subject rows[] = {
    ROW(topology),
    ROW(startup),
    ROW(ipi),
    ROW(ioapic),
    ROW(timer),
    ROW(tsc),
    ROW(tlb),
    ROW(atomics),
    ROW(watched),
    ROW(locks),
    ROW(selfmod),
    ROW(devices),
    ROW(msrs),
    ROW(state),
    ROW(x2apic), /* there is no way back */
    ROW(x2_ipi),
    ROW(x2_startup),
    ROW(x2_timer),
};
/* clang-format on */

void main(const void *multiboot);

static void start(void) {
    u32 count = option_number("cpus", madt_cpus());
    check("the MADT names the processors", madt_cpus(), count);
    excuse(on_tcg(), 1, "QEMU's firmware lists one of each package");
    check("so does the MP table", mp_cpus(), count);
    if (count > CPUS_MAX || !cpus_start(count)) {
        lost("a processor does not start", cpus, count, 0);
    }
    check("all processors have started", cpus, count);
}

void main(const void *multiboot) {
    options_init(multiboot);
    console_init();
    write_cr0(read_cr0() & ~(word)(CR0_CD | CR0_NW)); /* Bochs's BIOS leaves both set */
    descriptors_init();
    traps_init();
    pic_init();
    pit_stop();
    apic_enable();
    static const struct subject first = {"start", start};
    run_subject(&first);
    for (u32 row = 0; row < COUNT(rows); row++) {
        if (option_lists("only", rows[row].name) &&
            !(option("skip") && option_lists("skip", rows[row].name))) {
            run_subject(&rows[row]);
        }
    }
    finish();
}
