// The host's 16550s: COM1 to COM4, by interrupt, with a ring buffer each way. COM4, the debugger's,
// has a listener, so that it is not polled while it is silent.
#ifndef PCANEL_PORT_UART_H
#define PCANEL_PORT_UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "py/obj.h"

#define UART_COUNT     4
#define UART_LISTENS   3
#define UART_RING_SIZE 8192

void uart_init(void);
bool uart_present(unsigned index);

// Another port than the prompt's has received or sent something, by its interrupt.
extern volatile bool uart_guests_moved;

// listener(None) is scheduled when characters arrive on COM4, and when everything that waited has
// been sent; MP_OBJ_NULL: no listener.
void uart_listen(mp_obj_t listener);

size_t uart_rx_any(unsigned index); // number of characters that wait
int uart_rx_char(unsigned index); // -1 if none
size_t uart_tx_room(unsigned index);
bool uart_tx_char(unsigned index, uint8_t c); // false if there is no room
bool uart_tx_done(unsigned index); // the last bit is on the wire
uint64_t uart_overruns(unsigned index); // characters lost: by the chip, or a full ring

// One character on COM1 by polling, in the order of what was written before.
void uart_panic_char(uint8_t c);

#endif
