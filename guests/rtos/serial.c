/* A 16550 at 2F8H, IRQ 3. RTS falls when the receive ring is three quarters full and rises when it is a quarter full;
 * nothing is sent while CTS is low. */
#include "serial.h"
#include "kernel.h"

#define BASE       0x2f8
#define IRQ        3
#define IER        1
#define IIR        2
#define FCR        2
#define LCR        3
#define MCR        4
#define LSR        5
#define MSR        6
#define SCR        7
#define IER_ALL    0x0f
#define IIR_CAUSE  0x0f
#define IIR_NONE   1
#define IIR_MODEM  0
#define IIR_THRE   2
#define IIR_RX     4
#define LSR_DR     1
#define LSR_OE     2
#define LSR_TEMT   0x40
#define MCR_IDLE   0x08 /* OUT2 */
#define MCR_READY  0x0b /* OUT2, RTS, DTR */
#define MCR_HOLD   0x09 /* OUT2, DTR */
#define MSR_CTS    0x10
#define FIFO_BYTES 16
#define TRIGGER    14
#define RING_BYTES 4096
#define HIGH_WATER (RING_BYTES * 3 / 4)
#define LOW_WATER  (RING_BYTES / 4)

struct ring {
    u8 bytes[RING_BYTES];
    u32 in, out; /* counts; their difference is what waits */
    struct semaphore moved; /* binary: received, or sent down to half */
};

static struct ring rx, tx;
static bool clear_to_send, tx_idle, tx_waited, holding;
static u32 lost, holds, held; /* held: once for each time that CTS is low with bytes in `tx` */

static u32 used(const struct ring *ring) {
    return ring->in - ring->out;
}

/* LSR's error bits are gone once it is read. */
static u8 line_status(void) {
    u8 lsr = inb(BASE + LSR);
    lost += lsr & LSR_OE ? 1 : 0;
    return lsr;
}

/* Into the FIFO, which is empty. A task, which has interrupts off, sends one byte; the handler then fills it. */
static void transmit(u32 most) {
    tx_idle = !clear_to_send || !used(&tx);
    if (tx_idle) {
        return;
    }
    for (u32 burst = 0; burst < most && used(&tx); burst++) {
        outb(BASE, tx.bytes[tx.out++ % RING_BYTES]);
    }
    if (tx_waited && used(&tx) <= RING_BYTES / 2) {
        tx_waited = false;
        semaphore_give(&tx.moved);
    }
}

static void take(void) {
    u8 byte = inb(BASE);
    if (used(&rx) < RING_BYTES) {
        rx.bytes[rx.in++ % RING_BYTES] = byte;
    } else {
        lost++;
    }
}

/* At the trigger level so many are there for sure; only behind them LSR has to be asked. */
static void receive(u8 cause) {
    for (u32 sure = cause == IIR_RX ? TRIGGER : 0; sure; sure--) {
        take();
    }
    while (line_status() & LSR_DR) {
        take();
    }
    if (!holding && used(&rx) > HIGH_WATER) {
        holding = true;
        holds++;
        outb(BASE + MCR, MCR_HOLD);
    }
    semaphore_give(&rx.moved);
}

/* While tx_idle the FIFO is empty. */
static void modem(void) {
    bool could = clear_to_send;
    clear_to_send = inb(BASE + MSR) & MSR_CTS;
    held += could && !clear_to_send && used(&tx);
    if (clear_to_send && tx_idle) {
        transmit(FIFO_BYTES);
    }
}

static void interrupt(u64 entered) {
    (void)entered;
    for (;;) {
        u8 cause = inb(BASE + IIR) & IIR_CAUSE;
        if (cause & IIR_NONE) {
            return;
        }
        if (cause == IIR_THRE) {
            transmit(FIFO_BYTES);
        } else if (cause == IIR_MODEM) {
            modem();
        } else {
            receive(cause);
        }
    }
}

bool serial_open(void) {
    outb(BASE + SCR, 0x5a);
    if (inb(BASE + SCR) != 0x5a) {
        return false;
    }
    u32 flags = interrupts_off();
    rx.in = rx.out = tx.in = tx.out = 0;
    semaphore_init(&rx.moved, 0, 1);
    semaphore_init(&tx.moved, 0, 1);
    tx_waited = holding = false;
    tx_idle = true;
    outb(BASE + LCR, 0x80); /* DLAB: divisor 1 */
    outb(BASE, 1);
    outb(BASE + IER, 0);
    outb(BASE + LCR, 3);
    outb(BASE + FCR, 0xc7); /* FIFOs on and empty, receiver at 14 */
    line_status();
    lost = holds = held = 0;
    irq_connect(IRQ, interrupt);
    clear_to_send = inb(BASE + MSR) & MSR_CTS;
    outb(BASE + MCR, MCR_READY);
    outb(BASE + IER, IER_ALL);
    interrupts_restore(flags);
    return true;
}

void serial_close(void) {
    outb(BASE + IER, 0);
    outb(BASE + MCR, MCR_IDLE);
}

u32 serial_write(const u8 *bytes, u32 count, u32 timeout) {
    u32 flags = interrupts_off();
    u32 written = 0;
    while (written < count) {
        if (used(&tx) == RING_BYTES) {
            tx_waited = true;
            if (!semaphore_take(&tx.moved, timeout)) {
                break;
            }
            continue;
        }
        held += !clear_to_send && !used(&tx);
        tx.bytes[tx.in++ % RING_BYTES] = bytes[written++];
        if (tx_idle && clear_to_send) {
            transmit(1);
        }
    }
    interrupts_restore(flags);
    return written;
}

u32 serial_read(u8 *bytes, u32 most, u32 timeout) {
    u32 flags = interrupts_off();
    u32 count = 0;
    while (!used(&rx) && semaphore_take(&rx.moved, timeout)) {
    }
    while (count < most && used(&rx)) {
        bytes[count++] = rx.bytes[rx.out++ % RING_BYTES];
    }
    if (holding && used(&rx) < LOW_WATER) {
        holding = false;
        outb(BASE + MCR, MCR_READY);
    }
    interrupts_restore(flags);
    return count;
}

static bool sent(void) {
    u32 flags = interrupts_off();
    bool all = !used(&tx) && line_status() & LSR_TEMT;
    interrupts_restore(flags);
    return all;
}

bool serial_flush(u32 timeout) {
    u32 start = ticks;
    while (!sent()) {
        if (ticks - start >= timeout) {
            return false;
        }
        task_delay(1);
    }
    return true;
}

u32 serial_lost(void) {
    return lost;
}

u32 serial_holds(void) {
    return holds;
}

u32 serial_held(void) {
    return held;
}
