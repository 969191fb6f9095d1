/* The end. */
#ifndef RTOS_POWER_H
#define RTOS_POWER_H

void reboot(void) __attribute__((noreturn));
void power_off(void) __attribute__((noreturn));

#endif
