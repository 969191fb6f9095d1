// Waiting, for the rest of the port.
#ifndef PCANEL_PORT_IDLE_H
#define PCANEL_PORT_IDLE_H

#include <stdbool.h>
#include <stdint.h>

// No idle hook yet; once per heap.
void idle_init(void);

// Waits for a pending exception or callback, for console input if `input`, or for the deadline
// (TSC ticks; 0 = none), running the idle hook if there is one. May raise.
void idle_wait(uint64_t deadline, bool input);

// Python has run, or is about to: guests that the idle hook found idle may be runnable.
void idle_awake(void);

// Guests run in the middle of a line: a wait inside halts, as in the idle hook. leave takes the result of enter.
bool idle_enter_guests(void);
void idle_leave_guests(bool inside);

// Ctrl-C has arrived as an ordinary character, that is, at the prompt. Called from the
// interrupt: a hook that does not return is interrupted after a second.
void idle_ctrl_c(void);

// The second after Ctrl-C is over. Called from the interrupt.
void idle_stuck(void);

// From an interrupt: makes the hook, if it is running, return soon.
void idle_end(void);

#endif
