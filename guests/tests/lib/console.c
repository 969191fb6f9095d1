/* The console, and power off. */
#include "console.h"

#include "cpu.h"

#define COM1     0x3f8
#define LSR      5
#define LSR_THRE 0x20
#define LSR_TEMT 0x40
#define FIFO     16

void console_init(void) {
    outb(COM1 + 1, 0); /* no interrupts */
    outb(COM1 + 3, 0x80); /* DLAB: divisor 1, 115200 baud */
    outb(COM1 + 0, 1);
    outb(COM1 + 1, 0);
    outb(COM1 + 3, 3); /* 8N1 */
    outb(COM1 + 2, 7); /* FIFOs on and empty */
    outb(COM1 + 4, 3); /* DTR, RTS */
}

void console_drain(void) {
    while (!(inb(COM1 + LSR) & LSR_TEMT)) {
        pause();
    }
}

/* One look at the LSR for each FIFO full: under a monitor each is an exit. */
static void print_char(char c) {
    static u32 room;
    if (room == 0) {
        while (!(inb(COM1 + LSR) & LSR_THRE)) {
            pause();
        }
        room = FIFO;
    }
    room--;
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

void print_hex(u64 value) {
    int digits = 1;
    while (digits < 16 && value >> (digits * 4)) {
        digits++;
    }
    print("0x");
    while (digits--) {
        print_char("0123456789abcdef"[(value >> (digits * 4)) & 15]);
    }
}

void print_number(word value) {
    if (value >= 10) {
        print_number(value / 10);
    }
    print_char('0' + value % 10);
}

/* Power off: PM1a_CNT with SLP_EN and the type of Pcanel's S5, then with QEMU's, then as Bochs's BIOS sets
 * it up, then Bochs's own shutdown port. */
void power_off(void) {
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
