// cpu.HostFault, for trap.c.
#ifndef PCANEL_PORT_HOSTFAULT_H
#define PCANEL_PORT_HOSTFAULT_H

#include <stdint.h>

// Raises cpu.HostFault; trap.c makes a faulting instruction "call" it.
__attribute__((noreturn)) void hostfault_raise(
    uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t address);

#endif
