// A buffer in the image's memory for requests of and to host tools, where the engine gives them access to its memory.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define MAILBOX_BELL 0x00 // the host sends it on COM1 after it has written a request

// From the receive interrupt of COM1: whether this character was the bell, not input.
bool mailbox_bell(uint8_t c);

// Whether a request waits. Serving it runs Python, and may take long.
bool mailbox_rung(void);
void mailbox_serve(void);
