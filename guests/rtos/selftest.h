/* The kernel's tests of itself, run by the shell's `test`: PASS or FAIL lines and a SUMMARY. */
#ifndef RTOS_SELFTEST_H
#define RTOS_SELFTEST_H

void selftest(void);

#endif
