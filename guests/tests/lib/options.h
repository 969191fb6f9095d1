/* The Multiboot command line: KEY=VALUE a word. It is read where the loader has put it. */
#ifndef TESTS_OPTIONS_H
#define TESTS_OPTIONS_H

#include "types.h"

void options_init(const void *multiboot);

/* The value behind KEY, which ends at a space or at the end, or NULL. */
const char *option(const char *key);
u32 option_number(const char *key, u32 otherwise);

/* Whether NAME is in the option's comma-separated list, or the option is absent. */
bool option_lists(const char *key, const char *name);

#endif
