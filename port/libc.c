// Functions of libc that MicroPython calls and its shared/libc lacks.
#include <stdlib.h>
#include "port/trap.h"

void abort(void) {
    panic("abort", NULL);
}
