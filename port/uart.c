// 16550 driver. The trigger level is 1 of 16 characters, so at 115200 baud there are 1.3 ms to
// answer the interrupt. (With a higher level, the time-out interrupt makes Bochs 2.7 return a
// character that was never sent: a character that arrives just then rearms its timer, which expires
// after that character has been read.) Ctrl-C is recognized here, on COM1 only, so that it stops
// code that never reads input.
// Source: PC16550D data sheet.
#include "py/runtime.h"
#include "py/mphal.h"
#include "port/apic.h"
#include "port/idle.h"
#include "port/mailbox.h"
#include "port/trap.h"
#include "port/uart.h"
#include "port/x86.h"
#include "shared/runtime/interrupt_char.h"

#define IER_RX           (UART_IER_RX | UART_IER_LINE)
#define FCR_CLEARED      (UART_FCR_ENABLE | UART_FCR_CLEAR_RX | UART_FCR_CLEAR_TX) // trigger at 1
#define MCR_DTR_RTS_OUT2 (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT2)
#define CTRL_C           3

typedef struct {
    uint8_t data[UART_RING_SIZE];
    volatile uint32_t head, tail; // free-running
} ring_t;

typedef struct {
    uint16_t port;
    uint8_t irq;
    bool present;
    uint64_t overruns;
    unsigned room; // known free in the transmit FIFO
    ring_t rx, tx;
} uart_t;

static uart_t uarts[UART_COUNT] = {
    {.port = PC_COM1, .irq = PC_COM1_IRQ},
    {.port = PC_COM2, .irq = PC_COM2_IRQ},
    {.port = PC_COM3, .irq = PC_COM1_IRQ},
    {.port = PC_COM4, .irq = PC_COM2_IRQ},
};

volatile bool uart_guests_moved;

MP_REGISTER_ROOT_POINTER(mp_obj_t uart_listener); // called when COM4 has received something
static bool listener_told;

static size_t ring_used(const ring_t *ring) {
    return ring->head - ring->tail;
}

static bool ring_put(ring_t *ring, uint8_t c) {
    if (ring_used(ring) == UART_RING_SIZE) {
        return false;
    }
    ring->data[ring->head % UART_RING_SIZE] = c;
    __asm volatile("" : : : "memory");
    ring->head++;
    return true;
}

static int ring_get(ring_t *ring) {
    if (ring_used(ring) == 0) {
        return -1;
    }
    __asm volatile("" : : : "memory"); // head before data, data before tail
    uint8_t c = ring->data[ring->tail % UART_RING_SIZE];
    __asm volatile("" : : : "memory");
    ring->tail++;
    return c;
}

// Schedules the listener, which empties the ring: for the first of the waiting characters (anew), for a
// later one where the schedule was full, and when everything that waited has been sent.
static void tell_listener(bool anew) {
    mp_obj_t listener = MP_STATE_PORT(uart_listener);
    if (listener != MP_OBJ_NULL && (anew || !listener_told)) {
        listener_told = mp_sched_schedule(listener, mp_const_none);
    }
}

static void receive(uart_t *uart) {
    uint8_t lsr;
    while ((lsr = inb(uart->port + UART_LSR)) & (UART_LSR_DR | UART_LSR_OE)) {
        if (lsr & UART_LSR_OE) {
            uart->overruns++;
        }
        if (!(lsr & UART_LSR_DR)) {
            continue;
        }
        uint8_t c = inb(uart->port + UART_RBR);
        if (uart == &uarts[0] && c == CTRL_C && mp_interrupt_char < 0) {
            idle_ctrl_c();
        }
        if (uart == &uarts[0] && c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else if (uart == &uarts[0] && mailbox_bell(c)) {
            idle_end();
        } else if (!ring_put(&uart->rx, c)) {
            uart->overruns++;
        } else if (uart == &uarts[UART_LISTENS]) {
            tell_listener(ring_used(&uart->rx) == 1);
        }
    }
}

static void transmit(uart_t *uart) {
    if (inb(uart->port + UART_LSR) & UART_LSR_THRE) {
        uart->room = UART_FIFO_SIZE;
    }
    for (; uart->room != 0; uart->room--) {
        int c = ring_get(&uart->tx);
        if (c < 0) {
            outb(uart->port + UART_IER, IER_RX);
            return;
        }
        outb(uart->port + UART_THR, c);
    }
    outb(uart->port + UART_IER, IER_RX | UART_IER_THRE);
}

static bool serve(uart_t *uart) {
    if (!uart->present || inb(uart->port + UART_IIR) & UART_IIR_NONE) {
        return false;
    }
    bool sends = ring_used(&uart->tx) != 0;
    receive(uart);
    transmit(uart);
    if (sends && ring_used(&uart->tx) == 0 && uart == &uarts[UART_LISTENS]) {
        tell_listener(true);
    }
    uart_guests_moved |= uart != &uarts[0];
    inb(uart->port + UART_MSR);
    return true;
}

// COM1 and COM3 share an edge-triggered line, as do COM2 and COM4: loop until neither has an
// interrupt pending.
static void interrupt(trap_frame_t *frame) {
    uart_t *first = &uarts[frame->vector - TRAP_IRQ_BASE == uarts[0].irq ? 0 : 1];
    uart_t *second = first + 2;
    while (serve(first) | serve(second)) {
    }
}

static bool probe(uart_t *uart) {
    outb(uart->port + UART_SCR, 0x5a);
    if (inb(uart->port + UART_SCR) != 0x5a) {
        return false;
    }
    outb(uart->port + UART_SCR, 0xa5);
    return inb(uart->port + UART_SCR) == 0xa5;
}

void uart_listen(mp_obj_t listener) {
    listener_told = false;
    MP_STATE_PORT(uart_listener) = listener;
}

void uart_init(void) {
    for (unsigned i = 0; i < UART_COUNT; i++) {
        uart_t *uart = &uarts[i];
        uart->present = probe(uart);
        if (!uart->present) {
            continue;
        }
        uart->room = 0;
        outb(uart->port + UART_IER, 0);
        outb(uart->port + UART_LCR, UART_LCR_8N1 | UART_LCR_DLAB);
        outb(uart->port + UART_DLL, 1); // 115200 baud
        outb(uart->port + UART_DLM, 0);
        outb(uart->port + UART_LCR, UART_LCR_8N1);
        outb(uart->port + UART_FCR, FCR_CLEARED);
        outb(uart->port + UART_MCR, MCR_DTR_RTS_OUT2);
        trap_set_handler(TRAP_IRQ_BASE + uart->irq, interrupt);
        ioapic_route(uart->irq, TRAP_IRQ_BASE + uart->irq);
        outb(uart->port + UART_IER, IER_RX);
    }
}

bool uart_present(unsigned index) {
    return uarts[index].present;
}

size_t uart_rx_any(unsigned index) {
    return ring_used(&uarts[index].rx);
}

int uart_rx_char(unsigned index) {
    return ring_get(&uarts[index].rx);
}

size_t uart_tx_room(unsigned index) {
    return UART_RING_SIZE - ring_used(&uarts[index].tx);
}

bool uart_tx_char(unsigned index, uint8_t c) {
    uart_t *uart = &uarts[index];
    if (!uart->present) {
        return true;
    }
    uint64_t flags = irq_save();
    bool idle = ring_used(&uart->tx) == 0;
    bool taken = true;
    // Sent at once if possible: a transmit interrupt would end the sending guest's turn.
    if (idle && uart->room != 0) {
        outb(uart->port + UART_THR, c);
        uart->room--;
    } else {
        taken = ring_put(&uart->tx, c);
        if (idle && taken) {
            transmit(uart);
        }
    }
    irq_restore(flags);
    return taken;
}

bool uart_tx_done(unsigned index) {
    uart_t *uart = &uarts[index];
    return !uart->present ||
           (ring_used(&uart->tx) == 0 && (inb(uart->port + UART_LSR) & UART_LSR_TEMT));
}

uint64_t uart_overruns(unsigned index) {
    return uarts[index].overruns;
}

static void poll_char(uart_t *uart, uint8_t c) {
    while (!(inb(uart->port + UART_LSR) & UART_LSR_THRE)) {
    }
    outb(uart->port + UART_THR, c);
}

void uart_panic_char(uint8_t c) {
    uart_t *uart = &uarts[0];
    for (int waiting; (waiting = ring_get(&uart->tx)) >= 0;) {
        poll_char(uart, waiting);
    }
    poll_char(uart, c);
}
