/* The console: a 16550 by interrupt. */
#ifndef RTOS_UART_H
#define RTOS_UART_H

#include "cpu.h"

/* Until uart_start() output is polled, and after uart_poll_mode() again. */
void uart_init(void);
void uart_start(void);
void uart_poll_mode(void);

void uart_write(char c); /* waits for room */
char uart_read(void); /* waits for a character */
void uart_flush(void); /* waits until all is sent */

#endif
