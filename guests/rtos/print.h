/* Formatted output to the console: %s %c %u %d %x, %lu for 64 bits, with a width and '-' for the left side; and numbers
 * read. */
#ifndef RTOS_PRINT_H
#define RTOS_PRINT_H

#include "cpu.h"

void print(const char *format, ...);
u32 decimal(const char *text); /* up to what is no digit; at most 2**32 - 1 */

#endif
