// cpu.HostFault, for trap.c.
#ifndef PCANEL_PORT_HOSTFAULT_H
#define PCANEL_PORT_HOSTFAULT_H

#include <stdint.h>

// Raises cpu.HostFault. trap.c makes the IRET of the exception land here.
__attribute__((noreturn)) void hostfault_raise(
    uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t address);

#endif
