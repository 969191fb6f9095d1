"""The local APIC's registers (SDM Vol. 3A, "Local APIC Register Address Map"), and the model's own words behind them.

Values are offsets in bytes into the APIC's two pages; viper uses `IRR // 4`.
"""

from micropython import const

# Offsets in the page.
ID = const(0x20)
VERSION = const(0x30)
TPR = const(0x80)
APR = const(0x90)
PPR = const(0xA0)
EOI = const(0xB0)
RRD = const(0xC0)
LDR = const(0xD0)
DFR = const(0xE0)
SVR = const(0xF0)
ISR = const(0x100)
TMR = const(0x180)
IRR = const(0x200)
ESR = const(0x280)
ICR = const(0x300)
ICR_HIGH = const(0x310)  # x2APIC: the high half of MSR 830h is at 304h
LVT_TIMER = const(0x320)
LVT_THERMAL = const(0x330)
LVT_PERF = const(0x340)
LVT_LINT0 = const(0x350)
LVT_LINT1 = const(0x360)
LVT_ERROR = const(0x370)
TIMER_INITIAL = const(0x380)
TIMER_CURRENT = const(0x390)
TIMER_DIVIDE = const(0x3E0)
SELF_IPI = const(0x3F0)
END = const(0x400)

SVR_ENABLED = const(0x100)
LVT_MASKED = const(0x10000)

# The model's own words, in the second page: the first may be a virtual-APIC page, which the CPU lets the guest read.
DEADLINE = const(0x1000)  # IA32_TSC_DEADLINE
ENABLED = const(0x1008)  # IA32_APIC_BASE bit 11
IO_EXTINT = const(0x100C)  # the I/O APIC has sent an ExtINT message
LINT0_LEVEL = const(0x1010)  # level of the LINT0 pin, and behind it of LINT1
LEVELS_CHANGED = const(0x1018)  # TMR has changed: the EOI-exit bitmap has to follow
FRAME_AT = const(0x101C)  # address of the vCPU frame whose words quick handlers use, 0: none
VIRTUAL_DELIVERY = const(0x1020)  # the CPU delivers what IRR holds (vmm/vtx/apicv.py)
X2APIC = const(0x1024)  # IA32_APIC_BASE bit 10
TPR_SHADOW = const(0x1028)  # MOV to CR8 writes TPR without an exit (vmm/vtx/tpr_shadow.py)
TPR_KNOWN = const(0x102C)  # the TPR from which PPR was computed
TPR_LIMIT = const(0x1030)  # the VMCS's TPR threshold: the class of an interrupt that TPR holds up, or 0
APIC_ID = const(0x1034)  # as in CPUID; constant
SIZE = const(0x2000)  # of both pages

LINT0_EXTINT = const(0x700)  # delivery mode, not masked
REMOTE_IRR = const(0x4000)  # of an LVT register and of a redirection entry
LVT_MODE = const(0x10700)  # of an LVT register: mask and delivery mode
ESR_RECEIVE_VECTOR = const(0x40)

# Bits of a message, as ICR and redirection entries have them.
MODE = const(0x700)
LOGICAL = const(0x800)
TRIGGER_LEVEL = const(0x8000)
LEVEL_ASSERT = const(0x4000)

SELF = const(1)  # the shorthand, bits 19:18 of ICR
ICR_WRITABLE = const(0xCCFFF)  # of its low half
ICR_UNUSUAL = const(0xFFF33F00)  # all of ICR's low half but vector, level, trigger mode and shorthand

# Delivery modes, bits 10..8 of ICR, LVT and redirection entries.
FIXED = const(0)
LOWEST = const(1)
SMI = const(2)
NMI = const(4)
INIT = const(5)
STARTUP = const(6)
EXTINT = const(7)

# Modes of the timer, bits 18:17 of its LVT register.
TIMER_PERIODIC = const(1)
TIMER_TSC_DEADLINE = const(2)
