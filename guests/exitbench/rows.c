/* All rows, by the files that have them, in the order in which they run: the local APIC's modes come one after the other,
 * for there is no way back from x2APIC mode but to switch the APIC off. */
#include "rows.h"

#include "bench.h"

const struct group *const groups[] = {
    &cpu_group,
    &ports_group,
    &memory_group,
    &xapic_group,
    &x2apic_group,
    &second_group,
    &timers_group,
    &off_group,
};
const u32 group_count = COUNT(groups);

OPERATION(empty, )
const struct row empty_row = ROW(empty);
