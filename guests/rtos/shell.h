/* The shell on the console. */
#ifndef RTOS_SHELL_H
#define RTOS_SHELL_H

void shell_start(const char *banner_arguments);

#endif
