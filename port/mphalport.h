// MicroPython's hardware abstraction for this port.
#include <stdint.h>
#include "shared/runtime/interrupt_char.h"
#include "port/x86.h"

void mp_hal_set_interrupt_char(int c);
uint64_t mp_hal_time_ns(void);

static inline mp_uint_t mp_hal_ticks_cpu(void) {
    return rdtsc();
}

// For readline.
void mp_hal_move_cursor_back(unsigned pos);
void mp_hal_erase_line_from_cursor(unsigned chars);

#define MICROPY_BEGIN_ATOMIC_SECTION()    irq_save()
#define MICROPY_END_ATOMIC_SECTION(state) irq_restore(state)
