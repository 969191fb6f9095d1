/* The console: a 16550 at 3F8H, IRQ 4, 115200 8N1, with rings in both directions. */
#include "uart.h"
#include "kernel.h"

#define BASE       0x3f8
#define IRQ        4
#define IER        1
#define IIR        2
#define FCR        2
#define LCR        3
#define MCR        4
#define LSR        5
#define MSR        6
#define IER_RX     1
#define IER_THRE   2
#define IIR_NONE   1
#define IIR_THRE   2
#define IIR_MSR    0
#define LSR_DR     1
#define LSR_THRE   0x20
#define LSR_TEMT   0x40
#define FIFO_BYTES 16
#define RX_BYTES   256
#define TX_BYTES   2048

static struct {
    char bytes[RX_BYTES];
    u32 in, out; /* counts; their difference is what waits */
    struct semaphore filled;
    u32 overruns;
} rx;

static struct {
    char bytes[TX_BYTES];
    u32 in, out;
    struct semaphore room;
    bool waited, idle; /* waited: by how many tasks is not known */
} tx;

static bool polled = true;

/* Fills the FIFO. The transmitter's interrupt stays enabled: it comes once when the FIFO is empty, and if there is
 * nothing to send then, the next character starts it again. */
static void transmit(void) {
    tx.idle = tx.out == tx.in;
    for (u32 burst = 0; burst < FIFO_BYTES && tx.out != tx.in; burst++) {
        outb(BASE, tx.bytes[tx.out++ % TX_BYTES]);
    }
    if (tx.waited && tx.in - tx.out <= TX_BYTES / 2) {
        tx.waited = false;
        semaphore_flush(&tx.room);
    }
}

static void receive(void) {
    while (inb(BASE + LSR) & LSR_DR) {
        char c = inb(BASE);
        if (rx.in - rx.out < RX_BYTES) {
            rx.bytes[rx.in++ % RX_BYTES] = c;
            semaphore_give(&rx.filled);
        } else {
            rx.overruns++;
        }
    }
}

static void interrupt(u64 entered) {
    (void)entered;
    for (;;) {
        u8 cause = inb(BASE + IIR) & 0x0f;
        if (cause & IIR_NONE) {
            return;
        }
        if (cause == IIR_THRE) {
            transmit();
        } else if (cause == IIR_MSR) {
            inb(BASE + MSR);
        } else {
            receive();
        }
    }
}

void uart_init(void) {
    semaphore_init(&rx.filled, 0, RX_BYTES);
    semaphore_init(&tx.room, 0, 1);
    outb(BASE + IER, 0);
    outb(BASE + LCR, 0x80); /* DLAB: divisor 1 */
    outb(BASE, 1);
    outb(BASE + IER, 0);
    outb(BASE + LCR, 3);
    outb(BASE + FCR, 0x87); /* FIFOs on and empty, receiver at 8 */
    outb(BASE + MCR, 0x0b); /* DTR, RTS, OUT2 */
}

void uart_start(void) {
    irq_connect(IRQ, interrupt);
    tx.idle = true;
    outb(BASE + IER, IER_RX | IER_THRE);
    polled = false;
}

void uart_poll_mode(void) {
    outb(BASE + IER, 0);
    polled = true;
    while (tx.out != tx.in) {
        uart_write(tx.bytes[tx.out++ % TX_BYTES]);
    }
}

void uart_write(char c) {
    if (polled) {
        while (!(inb(BASE + LSR) & LSR_THRE)) {
        }
        outb(BASE, c);
        return;
    }
    u32 flags = interrupts_off();
    while (tx.in - tx.out == TX_BYTES) {
        tx.waited = true;
        semaphore_take(&tx.room, FOREVER);
    }
    tx.bytes[tx.in++ % TX_BYTES] = c;
    if (tx.idle) {
        transmit();
    }
    interrupts_restore(flags);
}

char uart_read(void) {
    semaphore_take(&rx.filled, FOREVER);
    u32 flags = interrupts_off();
    char c = rx.bytes[rx.out++ % RX_BYTES];
    interrupts_restore(flags);
    return c;
}

void uart_flush(void) {
    while (tx.out != tx.in || !(inb(BASE + LSR) & LSR_TEMT)) {
        task_delay(1);
    }
}
