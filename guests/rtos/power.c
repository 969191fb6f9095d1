/* Reset by 0CF9H, by the keyboard controller, by a triple fault; power off by PM1a_CNT. */
#include "power.h"
#include "kernel.h"

void reboot(void) {
    interrupts_off();
    outb(0xcf9, 0x02);
    outb(0xcf9, 0x06);
    for (volatile u32 turn = 0; turn < 1000000; turn++) {
    }
    outb(0x64, 0xfe);
    for (volatile u32 turn = 0; turn < 1000000; turn++) {
    }
    static const struct __attribute__((packed)) {
        u16 limit;
        u32 base;
    } nothing = {0, 0};
    asm volatile("lidt %0; int3" : : "m"(nothing));
    __builtin_unreachable();
}

/* SLP_EN and the SLP_TYP of S5: 5 as many DSDTs have it, 0 as QEMU has, where QEMU has PM1a_CNT; where Bochs's BIOS
 * puts it; and Bochs's own port. */
void power_off(void) {
    interrupts_off();
    outw(0x604, 0x3400);
    outw(0x604, 0x2000);
    outw(0xb004, 0x2000);
    for (const char *c = "Shutdown"; *c; c++) {
        outb(0x8900, *c);
    }
    for (;;) {
        asm volatile("hlt");
    }
}
