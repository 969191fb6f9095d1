/* The harness's own part of report.c. */
#ifndef TESTS_REPORT_H
#define TESTS_REPORT_H

#include "test.h"

void run_subject(const struct subject *subject);
void finish(void) __attribute__((noreturn));

/* An exception nobody expected: a FAIL, the summary, and the end. */
void lost(const char *what, u64 vector, u64 error, u64 ip) __attribute__((noreturn));

#endif
