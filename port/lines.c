// Interrupt lines of the host for drivers in Python (vmm/host). An interrupt ends the guest's turn, or
// the idle CPU's HLT, and the drivers poll their devices before the next turn. A level-triggered line is
// masked by its interrupt, until its driver has serviced the device and calls line() again.
// Source: 82093AA data sheet.
#include "py/runtime.h"
#include "port/apic.h"
#include "port/idle.h"
#include "port/trap.h"
#include "port/written.h"
#include "port/x86.h"

enum { MASKED, EDGE, LEVEL };

static uint8_t kinds[IOAPIC_PINS];

static void interrupt(trap_frame_t *frame) {
    unsigned line = frame->vector - TRAP_IRQ_BASE;
    if (kinds[line] == LEVEL) {
        ioapic_route(line, frame->vector | IOAPIC_LEVEL | IOAPIC_MASKED);
    }
    idle_awake();
}

// line(n, kind): configures interrupt line n of the I/O APIC; kind: 0 masked, 1 edge, 2 level. A masked
// level-triggered line is unmasked. ValueError for the lines of the UARTs and the timer.
static mp_obj_t mod_line(mp_obj_t line_in, mp_obj_t kind_in) {
    mp_int_t line = mp_obj_get_int(line_in);
    mp_int_t kind = mp_obj_get_int(kind_in);
    unsigned vector = TRAP_IRQ_BASE + line;
    if (line < 0 || line >= IOAPIC_PINS || vector == TRAP_TIMER || line == 3 || line == 4 ||
        kind < MASKED || kind > LEVEL) {
        mp_raise_ValueError(MP_ERROR_TEXT("no such interrupt line"));
    }
    uint64_t flags = irq_save();
    kinds[line] = kind;
    trap_set_handler(vector, interrupt);
    ioapic_route(
        line, vector | (kind == LEVEL ? IOAPIC_LEVEL : 0) | (kind == MASKED ? IOAPIC_MASKED : 0));
    irq_restore(flags);
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_2(cpu_line_obj, mod_line);

// insl(port, hpa, count), outsl(port, hpa, count): count dwords from a port to memory, and back.
static mp_obj_t mod_insl(mp_obj_t port, mp_obj_t hpa, mp_obj_t count) {
    void *at = (void *)mp_obj_get_int_truncated(hpa);
    size_t left = mp_obj_get_int(count);
    // Before, since a page fault in the middle may lose what the port has returned: it does under KVM.
    written_tell((uintptr_t)at, left * 4);
    __asm volatile("rep insl" : "+D"(at), "+c"(left) : "d"(mp_obj_get_int(port)) : "memory");
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_insl_obj, mod_insl);

static mp_obj_t mod_outsl(mp_obj_t port, mp_obj_t hpa, mp_obj_t count) {
    const void *at = (const void *)mp_obj_get_int_truncated(hpa);
    size_t left = mp_obj_get_int(count);
    __asm volatile("rep outsl" : "+S"(at), "+c"(left) : "d"(mp_obj_get_int(port)) : "memory");
    return mp_const_none;
}
MP_DEFINE_CONST_FUN_OBJ_3(cpu_outsl_obj, mod_outsl);
