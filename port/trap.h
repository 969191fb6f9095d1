// Interrupts and exceptions of the host.
#ifndef PCANEL_PORT_TRAP_H
#define PCANEL_PORT_TRAP_H

#include <stdbool.h>
#include <stdint.h>

// What trap_entry.S saves, lowest address first.
typedef struct {
    uint64_t r15, r14, r13, r12, r11, r10, r9, r8;
    uint64_t rdi, rsi, rbp, rbx, rdx, rcx, rax;
    uint64_t vector, error_code;
    uint64_t rip, cs, rflags, rsp, ss;
} trap_frame_t;

typedef void (*trap_handler_t)(trap_frame_t *frame);

#define TRAP_IRQ_BASE 0x30 // ISA interrupt n arrives as this + n
#define TRAP_TIMER    0x40 // local APIC timer
#define TRAP_SPURIOUS 0xff

// Set by host interrupts, except a timer interrupt that only the scheduler has armed; makes
// vcpu_enter() call VCPU_SLOT_ATTENTION instead of entering the guest.
extern volatile uint32_t host_attention;
#define ATTENTION_NEEDED  (1u)
#define ATTENTION_PUT_OFF (2u) // the service has waited for a guest's interrupt (coalesce.c)

// An NMI or a machine check has occurred that Python has not read yet; it ends the idle hook.
extern volatile bool trap_alarm;

// Sets the handler of a vector from 32 up. It runs with interrupts off, on the
// interrupted stack, and must not touch the FPU.
void trap_set_handler(unsigned vector, trap_handler_t handler);

// Interrupts without a handler.
uint64_t trap_unclaimed(void);

// NMIs that the host has taken.
uint64_t trap_nmis(void);

// Name of an exception vector in the SDM's notation ("#PF").
const char *trap_name(unsigned vector);

// The lazy FPU of vmxfpu.c: true if it handled this #NM.
bool vmx_nm_trap(void);

// Prints registers and a backtrace on COM1 and stops the machine.
__attribute__((noreturn)) void panic(const char *reason, const trap_frame_t *frame);

#endif
