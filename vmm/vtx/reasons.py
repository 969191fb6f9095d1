"""Basic exit reasons (SDM Vol. 3C, appendix "VMX Basic Exit Reasons").

Also the slots of the dispatch table that are no exits: for instance a host interrupt (ATTENTION) or a
pending event (PENDING) instead of an entry.
"""

from micropython import const

EXCEPTION_OR_NMI = const(0)
EXTERNAL_INTERRUPT = const(1)
TRIPLE_FAULT = const(2)
INIT_SIGNAL = const(3)
STARTUP_IPI = const(4)
IO_SMI = const(5)
OTHER_SMI = const(6)
INTERRUPT_WINDOW = const(7)
NMI_WINDOW = const(8)
TASK_SWITCH = const(9)
CPUID = const(10)
GETSEC = const(11)
HLT = const(12)
INVD = const(13)
INVLPG = const(14)
RDPMC = const(15)
RDTSC = const(16)
RSM = const(17)
VMCALL = const(18)
VMCLEAR = const(19)
VMLAUNCH = const(20)
VMPTRLD = const(21)
VMPTRST = const(22)
VMREAD = const(23)
VMRESUME = const(24)
VMWRITE = const(25)
VMXOFF = const(26)
VMXON = const(27)
CONTROL_REGISTER_ACCESS = const(28)
MOV_DR = const(29)
IO_INSTRUCTION = const(30)
RDMSR = const(31)
WRMSR = const(32)
ENTRY_FAILURE_GUEST_STATE = const(33)
ENTRY_FAILURE_MSR_LOADING = const(34)
MWAIT = const(36)
MONITOR_TRAP_FLAG = const(37)
MONITOR = const(39)
PAUSE = const(40)
ENTRY_FAILURE_MACHINE_CHECK = const(41)
TPR_BELOW_THRESHOLD = const(43)
APIC_ACCESS = const(44)
VIRTUALIZED_EOI = const(45)
GDTR_OR_IDTR_ACCESS = const(46)
LDTR_OR_TR_ACCESS = const(47)
EPT_VIOLATION = const(48)
EPT_MISCONFIGURATION = const(49)
INVEPT = const(50)
RDTSCP = const(51)
PREEMPTION_TIMER_EXPIRED = const(52)
INVVPID = const(53)
WBINVD = const(54)
XSETBV = const(55)
APIC_WRITE = const(56)
RDRAND = const(57)
INVPCID = const(58)
VMFUNC = const(59)
ENCLS = const(60)
RDSEED = const(61)
PAGE_MODIFICATION_LOG_FULL = const(62)
XSAVES = const(63)
XRSTORS = const(64)
PCONFIG = const(65)
SPP_RELATED_EVENT = const(66)
UMWAIT = const(67)
TPAUSE = const(68)
LOADIWKEY = const(69)
ENCLV = const(70)
ENQCMD_PASID_FAILURE = const(72)
ENQCMDS_PASID_FAILURE = const(73)
BUS_LOCK = const(74)
INSTRUCTION_TIMEOUT = const(75)
SEAMCALL = const(76)
TDCALL = const(77)

ATTENTION = const(78)
PENDING = const(79)
SLOTS = const(80)

# Slots that are no exits: neither counted nor timed.
COMPLETED = const(80)
SHUTDOWN = const(81)  # a triple fault of the guest, from any cause
RESET_REQUEST = const(82)
TIME = const(83)  # guest time, for policies
INTERRUPT = const(84)  # an interrupt is injected, for policies
ARRIVAL = const(85)  # an interrupt request has arrived at the local APIC, for policies
PACKET = const(86)  # a frame of its network interfaces, for policies
INJECTION = const(87)  # an exception is injected, for policies
WRITTEN = const(88)  # the monitor has written to a page of the guest that it has a copy of (vmm/debug/hidden.py)
ALL_SLOTS = const(89)
TABLE_SLOTS = const(256)  # those beyond ALL_SLOTS are for keys


def each():
    """Yield (reason, name)."""
    for name, value in globals().items():
        if name[0].isupper() and isinstance(value, int) and value < SLOTS:
            yield value, name


def names():
    """Return {reason: name}."""
    return dict(each())
