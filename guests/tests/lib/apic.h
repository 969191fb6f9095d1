/* The local APIC, by MMIO or, in x2APIC mode, by MSRs. */
#ifndef TESTS_APIC_H
#define TESTS_APIC_H

#include "types.h"

#define APIC_ID            0x020
#define APIC_VERSION       0x030
#define APIC_TPR           0x080
#define APIC_PPR           0x0a0
#define APIC_EOI           0x0b0
#define APIC_LDR           0x0d0
#define APIC_DFR           0x0e0
#define APIC_SVR           0x0f0
#define APIC_ISR           0x100
#define APIC_IRR           0x200
#define APIC_ESR           0x280
#define APIC_ICR           0x300
#define APIC_ICR_HIGH      0x310
#define APIC_LVT_TIMER     0x320
#define APIC_LVT_LINT0     0x350
#define APIC_LVT_LINT1     0x360
#define APIC_LVT_ERROR     0x370
#define APIC_INITIAL_COUNT 0x380
#define APIC_CURRENT_COUNT 0x390
#define APIC_DCR           0x3e0
#define APIC_SELF_IPI      0x3f0 /* x2APIC only */

#define APIC_ENABLE   0x100u /* SVR */
#define APIC_MASKED   0x10000u /* LVT */
#define APIC_PERIODIC 0x20000u /* LVT timer */
#define APIC_DEADLINE 0x40000u
#define APIC_EXTINT   0x700u
#define APIC_MODE_NMI 0x400u
#define APIC_PENDING  0x1000u /* ICR */
#define APIC_ASSERT   0x4000u
#define APIC_SELF     0x40000u
#define APIC_DIVIDE_1 0xbu

#define X2APIC_ENABLE 0x400u /* in IA32_APIC_BASE */

bool apic_is_x2(void);
u32 apic_read(u32 offset);
void apic_write(u32 offset, u32 value);

/* Enabled, 8259s through LINT0, everything else masked. */
void apic_enable(void);

/* ICR: low half, with the destination by id in either form; waits until it is sent. */
void apic_send(u32 icr, u32 destination);
u32 apic_id(void);

/* A bit of the ISR or the IRR. */
bool apic_bit(u32 offset, u32 vector);

#endif
