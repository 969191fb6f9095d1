/* The devices that are not in KVM. Unclaimed ports read as all ones. */
#include "kvmrun.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <x86intrin.h>

#define COM1        0x3f8
#define COM1_IRQ    4
#define IER         1
#define IIR         2
#define LCR         3
#define MCR         4
#define LSR         5
#define MSR         6
#define IER_THRE    2
#define IIR_NONE    1
#define IIR_THRE    2
#define IIR_FIFOS   0xc0
#define LCR_DLAB    0x80
#define MCR_LOOP    0x10
#define LSR_EMPTY   0x60
#define PM_STATUS   0x600 /* the block of vmm/acpi/tables.py: status, enable, control, timer */
#define PM_CONTROL  0x604
#define PM_TIMER    0x608
#define SCI_ENABLED 1
#define SLEEP       0x2000
#define PM_HZ       3579545ull
#define TSC_HZ      100000000ull /* Bochs counts so many to the second */
#define RTC_INDEX   0x70
#define RTC_DATA    0x71
#define POLICY_MMIO 0xc8000000u /* two pages: rows mmio_policy and memory_policy */

static struct {
    uint8_t ier, lcr, mcr, scratch, divisor[2];
    bool empty; /* the transmitter's interrupt is due */
} uart;

static uint8_t rtc_index;

static void uart_line(struct machine *machine, bool level) {
    struct kvm_irq_level line = {.irq = COM1_IRQ, .level = level};
    if (ioctl(machine->vm, KVM_IRQ_LINE, &line) < 0) {
        fail("KVM_IRQ_LINE");
    }
}

/* The line is edge-triggered: a byte that is written lowers it, and since it is sent at once, raises it again. */
static void uart_interrupt(struct machine *machine) {
    uart_line(machine, false);
    if (uart.empty && uart.ier & IER_THRE) {
        uart_line(machine, true);
    }
}

static void uart_write(struct machine *machine, unsigned offset, uint8_t value) {
    if (offset < 2 && uart.lcr & LCR_DLAB) {
        uart.divisor[offset] = value;
    } else if (offset == 0) {
        if (write(STDOUT_FILENO, &value, 1) != 1) {
            fail("standard output");
        }
        uart.empty = true;
    } else if (offset == IER) {
        uart.empty |= value & ~uart.ier & IER_THRE;
        uart.ier = value;
    } else if (offset == LCR) {
        uart.lcr = value;
    } else if (offset == MCR) {
        uart.mcr = value;
    } else if (offset == 7) {
        uart.scratch = value;
    }
    if (offset == IER || uart.ier & IER_THRE) {
        uart_interrupt(machine);
    }
}

static uint8_t uart_read(struct machine *machine, unsigned offset) {
    if (offset < 2 && uart.lcr & LCR_DLAB) {
        return uart.divisor[offset];
    }
    switch (offset) {
        case IER:
            return uart.ier;
        case IIR:
            if (uart.empty && uart.ier & IER_THRE) {
                uart.empty = false;
                uart_interrupt(machine);
                return IIR_FIFOS | IIR_THRE;
            }
            return IIR_FIFOS | IIR_NONE;
        case LCR:
            return uart.lcr;
        case MCR:
            return uart.mcr;
        case LSR:
            return LSR_EMPTY;
        case MSR: /* in loop mode the outputs come back as inputs */
            return uart.mcr & MCR_LOOP ? (uart.mcr & 2) << 3 | (uart.mcr & 1) << 5 |
                                             (uart.mcr & 4) << 4 | (uart.mcr & 8) << 4
                                       : 0xb0;
        case 7:
            return uart.scratch;
        default:
            return 0;
    }
}

/* A clock that stands at the first of January 2026, in BCD; it is read once only. */
static uint8_t rtc_read(void) {
    static const uint8_t values[] = {
        [4] = 0x12, [7] = 1, [8] = 1, [9] = 0x26, [10] = 0x26, [11] = 2, [13] = 0x80};
    if (rtc_index == 0x32) {
        return 0x20;
    }
    return rtc_index < sizeof(values) ? values[rtc_index] : 0;
}

static uint32_t port_read(struct machine *machine, uint16_t port, uint8_t size) {
    if (port >= COM1 && port < COM1 + 8) {
        return uart_read(machine, port - COM1);
    }
    switch (port) {
        case PM_TIMER:
            return (unsigned __int128)__rdtsc() * PM_HZ / TSC_HZ;
        case PM_STATUS:
        case PM_STATUS + 2:
            return 0;
        case PM_CONTROL:
            return SCI_ENABLED;
        case RTC_DATA:
            return rtc_read();
        default:
            return 0xffffffffu >> (32 - 8 * size);
    }
}

static bool port_write(struct machine *machine, uint16_t port, uint32_t value) {
    if (port >= COM1 && port < COM1 + 8) {
        uart_write(machine, port - COM1, value);
    } else if (port == RTC_INDEX) {
        rtc_index = value & 0x7f;
    }
    return !(port == PM_CONTROL && value & SLEEP);
}

bool device_port(struct machine *machine, struct kvm_run *run) {
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        uint32_t value = 0;
        if (run->io.direction == KVM_EXIT_IO_IN) {
            value = port_read(machine, run->io.port, run->io.size);
            memcpy(data, &value, run->io.size);
        } else {
            memcpy(&value, data, run->io.size);
            if (!port_write(machine, run->io.port, value)) {
                return false;
            }
        }
    }
    return true;
}

void device_memory(struct kvm_run *run) {
    if (!run->mmio.is_write) {
        bool ours = run->mmio.phys_addr >> 13 == POLICY_MMIO >> 13;
        memset(run->mmio.data, ours ? 0 : 0xff, run->mmio.len);
    }
}
