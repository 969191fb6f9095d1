// machine.UART's type, for modmachine.c.
#ifndef PCANEL_PORT_MACHINE_UART_H
#define PCANEL_PORT_MACHINE_UART_H

#include "py/obj.h"

extern const mp_obj_type_t pcanel_uart_type;

#endif
