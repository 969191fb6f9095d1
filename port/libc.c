// What MicroPython needs of libc and its own shared/libc does not have.
#include <stdlib.h>
#include "port/trap.h"

void abort(void) {
    panic("abort", NULL);
}
