/* The subjects. */
#ifndef SMP_SUITE_H
#define SMP_SUITE_H

#include "cpus.h"

void test_topology(void);
void test_startup(void);
void test_ipi(void);
void test_ioapic(void);
void test_timer(void);
void test_tsc(void);
void test_tlb(void);
void test_atomics(void);
void test_watched(void);
void test_locks(void);
void test_selfmod(void);
void test_devices(void);
void test_msrs(void);
void test_state(void);
void test_x2apic(void);
void test_x2_ipi(void);
void test_x2_startup(void);
void test_x2_timer(void);

#endif
