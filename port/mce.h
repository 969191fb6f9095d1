// Machine checks that reach the monitor itself.
#ifndef PCANEL_PORT_MCE_H
#define PCANEL_PORT_MCE_H

#include <stdbool.h>

// #MC: true where the interrupted code can go on; what the banks reported is kept for cpu.machine_checks(). Otherwise
// *reason is the text for panic().
bool mce_survived(const char **reason);

#endif
