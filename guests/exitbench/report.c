/* The console, a 16550 at 3F8H, and power off. */
#include "bench.h"

#define COM1     0x3f8
#define LSR      5
#define LSR_THRE 0x20
#define LSR_TEMT 0x40

void report_init(void) {
    outb(COM1 + 1, 0); /* no interrupts */
    outb(COM1 + 3, 0x80); /* DLAB: divisor 1, 115200 baud */
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3); /* 8N1 */
    outb(COM1 + 2, 7); /* FIFOs on and empty */
    outb(COM1 + 4, 3); /* DTR, RTS */
}

static void print_char(char c) {
    while (!(inb(COM1 + LSR) & LSR_THRE)) {
        pause();
    }
    outb(COM1, c);
}

void print(const char *text) {
    for (; *text; text++) {
        if (*text == '\n') {
            print_char('\r');
        }
        print_char(*text);
    }
}

void print_number(u64 value) {
    if (value >= 10) {
        print_number(value / 10);
    }
    print_char('0' + value % 10);
}

/* SLP_EN where QEMU and the monitor have PM1a_CNT, with the types of their S5, where Bochs's BIOS puts it, and Bochs's own
 * port. */
void finish(void) {
    while (!(inb(COM1 + LSR) & LSR_TEMT)) {
        pause();
    }
    outw(0x604, 0x3400);
    outw(0x604, 0x2000);
    outw(0xb004, 0x2000);
    for (const char *c = "Shutdown"; *c; c++) {
        outb(0x8900, *c);
    }
    for (;;) {
        asm volatile("cli; hlt");
    }
}
