/* A small real-time kernel for 32-bit PCs: starts the parts and the tasks.
 *
 * The command line may say hz=N, the rate of the tick, HZ_MIN to HZ_MAX, and report=N: after so many measured ticks
 * the statistics are printed and the machine is switched off.
 */
#include "clock.h"
#include "demo.h"
#include "kernel.h"
#include "print.h"
#include "shell.h"
#include "uart.h"

#define MULTIBOOT_MAGIC   0x2badb002
#define MULTIBOOT_CMDLINE 4u
#define HZ_DEFAULT        1000

struct multiboot {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline;
};

void main(u32 magic, const struct multiboot *multiboot);

/* The number behind `key` at the start of a word of the command line; `found` says whether there is one. */
static u32 option(const char *cmdline, const char *key, bool *found) {
    *found = false;
    for (; *cmdline; cmdline++) {
        const char *at = cmdline, *name = key;
        while (*name && *at == *name) {
            at++;
            name++;
        }
        if (!*name) {
            *found = *at >= '0' && *at <= '9';
            return decimal(at);
        }
        while (*cmdline && *cmdline != ' ') {
            cmdline++;
        }
        if (!*cmdline) {
            break;
        }
    }
    return 0;
}

void main(u32 magic, const struct multiboot *multiboot) {
    const char *cmdline = "", *remark = "";
    if (magic == MULTIBOOT_MAGIC && multiboot->flags & MULTIBOOT_CMDLINE) {
        cmdline = (const char *)multiboot->cmdline;
    }
    bool found;
    u32 hz = option(cmdline, "hz=", &found);
    if (!found) {
        hz = HZ_DEFAULT;
    } else if (hz < HZ_MIN || hz > HZ_MAX) {
        hz = HZ_DEFAULT;
        remark = " (hz= on the command line is out of range)";
    }
    interrupts_init();
    fpu_init();
    uart_init();
    scheduler_init();
    clock_init(hz);
    demo_start();
    shell_start(remark);
    u32 report = option(cmdline, "report=", &found);
    if (found) {
        report_start(report);
    }
    uart_start();
    clock_start();
    scheduler_start();
}
