/* The subjects. */
#ifndef TESTS_SUITE_H
#define TESTS_SUITE_H

#include "test.h"

void test_cpuid(void);
void test_msr(void);
void test_ports(void);
void test_strings(void);
void test_control(void);
void test_exceptions(void);
void test_interrupts(void);
void test_pages(void);
void test_operands(void);
void test_ring3(void);
void test_tasks(void);
void test_modes(void);
void test_selfmod(void);
void test_vmx(void);
void test_fpu(void);
void test_debug(void);
void test_watch(void);
void test_misc(void);
void test_xapic(void);
void test_x2apic(void);

#endif
