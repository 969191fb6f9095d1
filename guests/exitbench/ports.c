/* Rows of ports. */
#include "apic.h"
#include "bench.h"

#define POLICY_PORT   0x5e0 /* nothing is there but the bench's policy or program */
#define NOBODYS_PORT  0x5f0
#define COM1          0x3f8
#define IER           1
#define IIR           2
#define MCR           4
#define LSR           5
#define IER_THRE      2
#define MCR_ON        0x0b /* DTR, RTS and OUT2, which lets the interrupt out */
#define MCR_QUIET     0x03
#define UART_PIN      4 /* of the I/O APIC */
#define IOAPIC_SELECT 0xfec00000u
#define IOAPIC_WINDOW 0xfec00010u
#define REDIRECTION   0x10
#define MASKED        0x10000u
#define PACE          20000 /* ticks between characters: a line of 115,200 baud has carried one by then */

static u16 pm_timer;

OPERATION(in_pic, inb(0x21))
OPERATION(out_pic, outb(0x21, 0xff))
OPERATION(in_pit, inb(0x40))
OPERATION(in_uart, inb(COM1 + LSR))
OPERATION(in_pm_timer, inl(pm_timer))
OPERATION(out_pm_timer, outl(pm_timer, 0))
OPERATION(in_nobody, inb(NOBODYS_PORT))
OPERATION(out_policy, outb(POLICY_PORT, i))

/* Until the host's side has taken the last character. */
static void pace(void) {
    for (u32 start = ticks(); ticks() - start < PACE;) {
        pause();
    }
}

STEPS(
    uart_char, uart_came = false,
    {
        outb(COM1, '.');
        sti();
        while (!uart_came) {
        }
        cli();
    },
    pace())

static const char *pm_timer_begin(void) {
    pm_timer = option_number("pm_timer", 0);
    return pm_timer ? NULL : "no PM timer was named";
}

static const char *pm_timer_out_begin(void) {
    const char *reason = hypervisor_begin();
    return reason ? reason : pm_timer_begin();
}

static const char *pit_begin(void) {
    outb(0x43, 0x34); /* counter 0: low, high, mode 2 */
    outb(0x40, 0);
    outb(0x40, 0);
    return NULL;
}

static void pit_end(void) {
    outb(0x43, 0x30); /* mode 0 without a count: stopped */
}

static void redirect(u32 pin, u32 entry) {
    MMIO(IOAPIC_SELECT) = REDIRECTION + 2 * pin + 1;
    MMIO(IOAPIC_WINDOW) = MMIO(XAPIC + APIC_ID); /* the ID is in the same bits there */
    MMIO(IOAPIC_SELECT) = REDIRECTION + 2 * pin;
    MMIO(IOAPIC_WINDOW) = entry;
}

/* On a machine of its own a character leaves at the speed of the line, which is what the row would measure. */
static const char *uart_begin(void) {
    const char *reason = hypervisor_begin();
    if (!reason) {
        reason = xapic_on();
    }
    if (reason) {
        return reason;
    }
    console_drain();
    redirect(UART_PIN, VECTOR_UART); /* an edge */
    outb(COM1 + MCR, MCR_ON);
    outb(COM1 + IER, IER_THRE);
    inb(COM1 + IIR);
    sti();
    asm volatile("nop");
    cli();
    return NULL;
}

static void uart_end(void) {
    outb(COM1 + IER, 0);
    outb(COM1 + MCR, MCR_QUIET);
    redirect(UART_PIN, MASKED | VECTOR_UART);
    print("\n"); /* behind the characters, so that the next line is one */
}

static const struct row ports_rows[] = {
    ROW(in_pic),
    ROW(out_pic),
    ROW(in_pit, .begin = pit_begin, .end = pit_end),
    ROW(in_uart),
    ROW(in_pm_timer, .begin = pm_timer_begin),
    ROW(out_pm_timer, .begin = pm_timer_out_begin),
    ROW(in_nobody),
    ROW(out_policy),
    ROW(uart_char, .begin = uart_begin, .end = uart_end),
};
GROUP(ports);
