// Included by extmod/modmachine.c: idle and reset.
// Source: for reset, the PIIX data sheet (port 0xCF9) and the 8042's command 0xFE;
// for the last resort, SDM Vol. 3A on the double fault that cannot be delivered.
#include "port/machine_uart.h"
#include "port/idle.h"
#include "port/ramdisk.h"
#include "port/timer.h"
#include "port/uart.h"
#include "port/x86.h"

// machine.soft_reset() is not sys.exit() here, which only ends its script (softreset.c).
MP_DECLARE_CONST_FUN_OBJ_0(machine_soft_reset_obj);
#define mp_sys_exit_obj machine_soft_reset_obj

#define RESET_WAIT_US 100000
#define DRAIN_WAIT_US 1000000

#define MICROPY_PY_MACHINE_EXTRA_GLOBALS                                                           \
    {MP_ROM_QSTR(MP_QSTR_UART), MP_ROM_PTR(&pcanel_uart_type)},                                    \
        {MP_ROM_QSTR(MP_QSTR_RamDisk), MP_ROM_PTR(&ramdisk_type)},

static void mp_machine_idle(void) {
    idle_wait(rdtsc() + timer_us(1000), false);
}

static void pause_us(uint64_t us) {
    uint64_t end = rdtsc() + timer_us(us);
    while (rdtsc() < end) {
    }
}

NORETURN static void mp_machine_reset(void) {
    uint64_t end = rdtsc() + timer_us(DRAIN_WAIT_US);
    while (!uart_tx_done(0) && rdtsc() < end) {
    }
    irq_disable();
    outb(PC_RESET_CONTROL, RESET_SYSTEM);
    outb(PC_RESET_CONTROL, RESET_SYSTEM | RESET_CPU);
    pause_us(RESET_WAIT_US);
    outb(PC_KEYBOARD_COMMAND, KEYBOARD_PULSE | (0xf & ~KEYBOARD_NOT_RESET));
    pause_us(RESET_WAIT_US);
    struct __attribute__((packed)) {
        uint16_t limit;
        uint64_t base;
    } empty = {0, 0};
    for (;;) {
        __asm volatile("lidt %0; int3" : : "m"(empty));
    }
}

// A PC does not report the cause of a reset.
static mp_int_t mp_machine_reset_cause(void) {
    return 0;
}
