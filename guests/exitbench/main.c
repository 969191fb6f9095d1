/* Runs the rows, and prints a line for each.
 *
 * On the command line: rows=NAME,... (default all), rounds=N (default 2000), trace=1 (one more round of each row, between
 * marks for Bochs's debugger), pm_timer=PORT (default none: no such row), cpus=N (default 1: no rows with a second),
 * breakpoints=1 (the functions under breakpoints begin with INT3).
 */
#include "rows.h"

#define WARM_UP 20
#define LONG    20000u /* ticks of a round; a row of such rounds has a tenth of them */

void main(const void *multiboot);

static u32 samples[ROUNDS_MAX];
static u32 empty; /* what a round costs that does nothing */

/* Shell sort: few lines, and quick enough. */
static void sort(u32 *values, u32 count) {
    for (u32 gap = count / 2; gap; gap /= 2) {
        for (u32 i = gap; i < count; i++) {
            u32 value = values[i], at = i;
            for (; at >= gap && values[at - gap] > value; at -= gap) {
                values[at] = values[at - gap];
            }
            values[at] = value;
        }
    }
}

static void print_field(const char *name, u32 value, u32 overhead) {
    print(" ");
    print(name);
    print(" ");
    print_number(value > overhead ? value - overhead : 0);
}

static void run(const struct row *row, u32 rounds) {
    const char *reason = row->begin ? row->begin() : NULL;
    if (reason) {
        print("skip ");
        print(row->name);
        print(" ");
        print(reason);
        print("\n");
        return;
    }
    row->measure(samples, WARM_UP);
    sort(samples, WARM_UP);
    if (samples[WARM_UP / 2] > LONG && rounds >= 10) {
        rounds /= 10;
    }
    row->measure(samples, rounds);
    if (option_number("trace", 0)) {
        row->once();
    }
    if (row->end) {
        row->end();
    }
    sort(samples, rounds);
    print("row ");
    print(row->name);
    u32 overhead = row->whole ? 0 : empty;
    print_field("median", samples[rounds / 2], overhead);
    print_field("min", samples[0], overhead);
    print_field("max", samples[rounds - 1], overhead);
    print(" rounds ");
    print_number(rounds);
    print("\n");
}

static void empty_init(u32 rounds) {
    empty_row.measure(samples, rounds);
    sort(samples, rounds);
    empty = samples[rounds / 2];
    print("empty ");
    print_number(empty);
    print("\n");
}

void main(const void *multiboot) {
    options_init(multiboot);
    console_init();
    write_cr0(read_cr0() & ~(word)(CR0_CD | CR0_NW)); /* Bochs's BIOS leaves both set */
    interrupts_init();
    u32 rounds = option_number("rounds", 2000);
    rounds = rounds < 1 ? 1 : rounds > ROUNDS_MAX ? ROUNDS_MAX : rounds;
    empty_init(rounds);
    for (u32 group = 0; group < group_count; group++) {
        for (u32 row = 0; row < groups[group]->count; row++) {
            if (option_lists("rows", groups[group]->rows[row].name)) {
                run(&groups[group]->rows[row], rounds);
            }
        }
    }
    print("exitbench: done\n");
    console_drain();
    power_off();
}
