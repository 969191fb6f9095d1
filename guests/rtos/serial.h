/* The second serial port, for data: a 16550 by interrupt, with RTS/CTS flow control both ways. */
#ifndef RTOS_SERIAL_H
#define RTOS_SERIAL_H

#include "cpu.h"

bool serial_open(void); /* false: there is no such port */
void serial_close(void);

/* Waits for room at most `timeout` ticks at a time; returns how many were taken. */
u32 serial_write(const u8 *bytes, u32 count, u32 timeout);
/* Waits for the first byte at most `timeout` ticks; returns how many there were, 0 for none. */
u32 serial_read(u8 *bytes, u32 most, u32 timeout);
bool serial_flush(u32 timeout); /* waits until all is sent */
/* Since serial_open(): bytes that came and found no room; how often RTS fell; how often CTS was low with bytes to
 * send. */
u32 serial_lost(void);
u32 serial_holds(void);
u32 serial_held(void);

#endif
