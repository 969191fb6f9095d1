// Machine checks that reach the monitor itself.
#ifndef PCANEL_PORT_MCE_H
#define PCANEL_PORT_MCE_H

#include <stdbool.h>

// #MC: true where the interrupted code can go on. What the banks said is kept for cpu.machine_checks(). Where the
// code cannot go on, reason is the text of the report.
bool mce_survived(const char **reason);

#endif
