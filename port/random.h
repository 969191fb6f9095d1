// Random numbers for os.urandom() and cpu.random(), and to seed the random module.
#ifndef PCANEL_PORT_RANDOM_H
#define PCANEL_PORT_RANDOM_H

#include <stdint.h>

uint64_t pcanel_random(void);

#endif
