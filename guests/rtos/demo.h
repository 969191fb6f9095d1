/* Tasks that keep the system busy in a small way, as an application would. */
#ifndef RTOS_DEMO_H
#define RTOS_DEMO_H

#include "cpu.h"

void demo_start(void);
void demo_print(void);
void demo_load(bool on);

#endif
