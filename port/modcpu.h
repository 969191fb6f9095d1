// The cpu module's C side, for the rest of the port.
#ifndef PCANEL_PORT_MODCPU_H
#define PCANEL_PORT_MODCPU_H

#include <stdbool.h>
#include <stdint.h>

// Raises cpu.HostFault; trap.c makes a faulting instruction "call" it.
__attribute__((noreturn)) void cpu_raise_host_fault(
    uint64_t vector, uint64_t error_code, uint64_t rip, uint64_t address);

// Prepares what an interrupt handler may need to raise; once per heap.
void cpu_module_init(void);

// Waits for a pending exception or callback, for console input where `input` says so, or
// for the deadline (TSC ticks; 0 = none), running the idle hook if there is one. May raise.
void cpu_wait(uint64_t deadline, bool input);

// Ctrl-C has come while it is an ordinary character, that is, at the prompt. Called from
// the interrupt: a hook that does not return is interrupted after a second.
void cpu_ctrl_c(void);

// watch() of code that is interrupted by preempt(): its time stands still in between.
typedef struct {
    uint64_t deadline, since; // TSC
    unsigned shots;
} cpu_watch_t;
cpu_watch_t cpu_watch_suspend(void);
void cpu_watch_resume(cpu_watch_t watch);

// True if the current wait has reason to end.
bool cpu_wanted(void);

#endif
