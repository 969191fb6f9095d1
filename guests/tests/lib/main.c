/* Sets the machine up and runs the suite. */
#include "chips.h"
#include "console.h"
#include "descriptors.h"
#include "paging.h"
#include "report.h"
#include "test.h"

void main(void);

void main(void) {
    console_init();
    write_cr0(read_cr0() & ~(word)(CR0_CD | CR0_NW)); /* Bochs's BIOS leaves both set */
    descriptors_init();
    traps_init();
    pic_init();
    pit_stop();
#if PAGED
    paging_init();
#endif
    for (u32 row = 0; row < suite_size; row++) {
        run_subject(&suite[row]);
    }
    finish();
}
