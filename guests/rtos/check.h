/* What the kernel's tests of itself share. */
#ifndef RTOS_CHECK_H
#define RTOS_CHECK_H

#include "kernel.h"

#define LOW    24
#define MIDDLE 20
#define HIGH   16

void check(const char *name, bool condition);

/* The order in which things happen: marks, one after another. ordered() forgets them. */
void note(char mark);
void forget(void);
bool ordered(const char *want);
void mark(void *argument); /* a task that notes its argument */

void selftest_sync(void);
void selftest_mutex(void);

#endif
