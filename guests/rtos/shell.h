/* The shell on the console. */
#ifndef RTOS_SHELL_H
#define RTOS_SHELL_H

#include "cpu.h"

void shell_start(const char *banner_arguments);
void report_start(u32 count); /* `stats` and `poweroff` after so many measured ticks */

#endif
