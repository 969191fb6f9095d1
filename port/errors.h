// Exceptions that end what a person typed at the prompt.
#ifndef PCANEL_PORT_ERRORS_H
#define PCANEL_PORT_ERRORS_H

#include "py/obj.h"

void errors_init(void); // at every soft reset: no hook
void errors_print(const mp_print_t *print, mp_obj_t error);

#endif
