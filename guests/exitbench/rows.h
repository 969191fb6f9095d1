/* What main.c runs. */
#ifndef EXITBENCH_ROWS_H
#define EXITBENCH_ROWS_H

#include "bench.h"

extern const struct row empty_row; /* whose operation is nothing */
extern const struct group *const groups[];
extern const u32 group_count;

#endif
