/* The console, a 16550 at 3F8H, and power off. */
#ifndef TESTS_CONSOLE_H
#define TESTS_CONSOLE_H

#include "types.h"

void console_init(void);
void console_drain(void); /* until the last character has left */
void print(const char *text);
void print_hex(u64 value);
void print_number(word value); /* decimal */

void power_off(void) __attribute__((noreturn));

#endif
