// Panic: registers and a backtrace on COM1, by polling; exit code to QEMU; HLT.
//
// The code is built without frame pointers, so the backtrace is a scan of the
// stack for addresses that follow a CALL. It may show a stale return address;
// it does not miss a live one. Nothing here touches memory outside the stack.
#include <stddef.h>
#include "port/trap.h"
#include "port/uart.h"
#include "port/x86.h"

#define BACKTRACE_MAX    48
#define PVPANIC          0x505 // QEMU's pvpanic port: reads as the events that it supports
#define PVPANIC_PANICKED 1

extern const char image_start[], text_end[], boot_stack[], boot_stack_end[];

static void put(const char *text) {
    for (; *text; text++) {
        uart_panic_char(*text);
    }
}

static void put_hex(uint64_t value, unsigned digits) {
    while (digits--) {
        uart_panic_char("0123456789abcdef"[value >> (digits * 4) & 15]);
    }
}

static void put_register(const char *name, uint64_t value) {
    put(name);
    put("=");
    put_hex(value, 16);
    put(" ");
}

static bool is_text(uint64_t address) {
    return address >= (uintptr_t)image_start + 8 && address < (uintptr_t)text_end;
}

// CALL rel32, or CALL r/m64 of two to seven bytes.
static bool follows_call(uint64_t address) {
    const uint8_t *code = (const uint8_t *)address;
    if (code[-5] == 0xe8) {
        return true;
    }
    for (int length = 2; length <= 7; length++) {
        if (code[-length] == 0xff && (code[-length + 1] & 0x38) == 0x10) {
            return true;
        }
    }
    return false;
}

static void backtrace(const trap_frame_t *frame) {
    put("backtrace (addresses in build/pcanel.elf):\r\n  ");
    put_hex(frame->rip, 16);
    put("\r\n");
    uint64_t rsp = (frame->rsp + 7) & ~7ull, end = (uintptr_t)boot_stack_end;
    if (rsp < (uintptr_t)boot_stack || rsp > end) {
        put("  RSP is not on the stack\r\n");
        return;
    }
    for (unsigned count = 0; rsp < end && count < BACKTRACE_MAX; rsp += 8) {
        uint64_t word = *(const uint64_t *)rsp;
        if (is_text(word) && follows_call(word)) {
            put("  ");
            put_hex(word, 16);
            put("\r\n");
            count++;
        }
    }
}

static void halt(void) __attribute__((noreturn));
static void halt(void) {
    for (;;) {
        __asm volatile("cli; hlt");
    }
}

void panic(const char *reason, const trap_frame_t *frame) {
    static bool again;
    irq_disable();
    uint64_t cr2 = read_cr2();
    put("\r\n\r\nPANIC: ");
    put(reason);
    if (again) {
        put(" (inside a panic)\r\n");
        halt();
    }
    again = true;
    if (frame != NULL) {
        put(" error_code=");
        put_hex(frame->error_code, 8);
        put("\r\n");
        put_register("RIP", frame->rip);
        put_register("RSP", frame->rsp);
        put_register("RFL", frame->rflags);
        put("\r\n");
        put_register("RAX", frame->rax);
        put_register("RBX", frame->rbx);
        put_register("RCX", frame->rcx);
        put_register("RDX", frame->rdx);
        put("\r\n");
        put_register("RSI", frame->rsi);
        put_register("RDI", frame->rdi);
        put_register("RBP", frame->rbp);
        put_register("R8 ", frame->r8);
        put("\r\n");
        put_register("R9 ", frame->r9);
        put_register("R10", frame->r10);
        put_register("R11", frame->r11);
        put_register("R12", frame->r12);
        put("\r\n");
        put_register("R13", frame->r13);
        put_register("R14", frame->r14);
        put_register("R15", frame->r15);
        put("\r\n");
        put_register("CR0", read_cr0());
        put_register("CR2", cr2);
        put_register("CR3", read_cr3());
        put_register("CR4", read_cr4());
        put("\r\n");
        backtrace(frame);
    }
    put("\r\nThe machine is stopped.\r\n");
    uint8_t known = inb(PVPANIC);
    if (known != 0xff && (known & PVPANIC_PANICKED)) {
        outb(PVPANIC, PVPANIC_PANICKED);
    }
    halt();
}
