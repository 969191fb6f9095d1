/* Formatted output to the console: %s %c %u %d %x, %lu for 64 bits, with a width and '-' for the left side. */
#ifndef RTOS_PRINT_H
#define RTOS_PRINT_H

void print(const char *format, ...);

#endif
