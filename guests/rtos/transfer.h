/* Bytes over the second serial port, with their CRC-32 as crc32 and gzip have it. */
#ifndef RTOS_TRANSFER_H
#define RTOS_TRANSFER_H

#include "cpu.h"

/* Sends so many bytes of a fixed pattern, receives so many, both at once, or late: only when Enter has been typed.
 * Prints the checksums, and how often a side was held back by RTS and CTS. */
void transfer(u32 send, u32 receive, bool late);

#endif
