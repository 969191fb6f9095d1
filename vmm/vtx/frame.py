"""The vCPU frame: the indices of its words. port/vcpu.h has the structure in C; the build asserts that both agree.

Values are indices of 32-bit words, as viper uses them:

    f = ptr32(vcpu)
    leaf = f[RAX]          # low half
    f[RDX + 1] = 0         # high half

Modules import these names; port/constants.py replaces them by numbers.
"""

from micropython import const

RAX = const(0x000 // 4)
RCX = const(0x008 // 4)
RDX = const(0x010 // 4)
RBX = const(0x018 // 4)
RSP = const(0x020 // 4)
RBP = const(0x028 // 4)
RSI = const(0x030 // 4)
RDI = const(0x038 // 4)
R8 = const(0x040 // 4)
R9 = const(0x048 // 4)
R10 = const(0x050 // 4)
R11 = const(0x058 // 4)
RIP = const(0x080 // 4)
RFLAGS = const(0x088 // 4)
REASON = const(0x090 // 4)
QUALIFICATION = const(0x098 // 4)
LENGTH = const(0x0A0 // 4)
LINEAR = const(0x0A8 // 4)
GPA = const(0x0B0 // 4)
INTR_INFO = const(0x0B8 // 4)
INTR_ERROR = const(0x0C0 // 4)
VECTORING_INFO = const(0x0C8 // 4)
VECTORING_ERROR = const(0x0D0 // 4)
INSTR_INFO = const(0x0D8 // 4)
ENTRY_INFO = const(0x0E0 // 4)
DIRTY = const(0x0F8 // 4)
VERDICT = const(0x100 // 4)
PENDING = const(0x108 // 4)
WRITTEN = const(0x10C // 4)  # as PENDING, for slot WRITTEN (port/written.c)
DEADLINE = const(0x110 // 4)
EXIT_TSC = const(0x118 // 4)
ENTRY_TSC = const(0x120 // 4)
GUEST_TICKS = const(0x128 // 4)
XCR0 = const(0x160 // 4)
HOST_RSP = const(0x168 // 4)
LAUNCHED = const(0x170 // 4)
HOST_TICKS = const(0x180 // 4)
MIN_RUN = const(0x188 // 4)
DATUM = const(0x190 // 4)
TSC_OFFSET = const(0x198 // 4)
CLOCK_OFFSET = const(0x1A0 // 4)
SLICE_END = const(0x1A8 // 4)
TIMER_COUNT = const(0x1B0 // 4)
OUTCOME = const(0x1B8 // 4)
CONTROLS = const(0x1C0 // 4)
RVI = const(0x1C8 // 4)
INTERRUPTIBILITY = const(0x1D0 // 4)
PENDING_DEBUG = const(0x1D8 // 4)
NMIS = const(0x1E0 // 4)
CR3 = const(0x1E8 // 4)
CS_RIGHTS = const(0x1F0 // 4)
WANTS = const(0x200 // 4)  # one word a reason
COUNT = const(0x340 // 4)  # two words a reason
TICKS = const(0x5C0 // 4)  # two words a reason
KEYS = const(0x940 // 4)  # one word a reason
TIMERS = const(0xA80 // 4)  # two words a timer
MSRS = const(0x840)  # bytes: 16 entries of index, 0, value
MSR_SLOTS = const(16)
GUEST_MSRS = const(0xF80)  # bytes: the VMCS's MSR areas (vmm/handlers/spec_msrs.py), 4 entries each
HOST_MSRS = const(0xFC0)
XSAVE = const(0x1000)  # bytes
SIZE = const(0x4000)  # bytes: the frame's page and three for XSAVE

# The scheduler's (vmm/scheduling/sched.py).
STATE = const(0xB00 // 4)
PRIORITY = const(0xB08 // 4)
TURN = const(0xB10 // 4)  # virtual time: ticks used, by the share
SHARE = const(0xB18 // 4)
WAKES = const(0xB20 // 4)
LATE = const(0xB28 // 4)  # ticks from timers' deadlines to entries, in all
LATEST = const(0xB30 // 4)
DUE = const(0xB38 // 4)  # host TSC of the deadline that the next entry serves
APIC_PAGE = const(0xB40 // 4)
NEXT = const(0xB48 // 4)
LEAD = const(0xB58 // 4)  # ticks by which the guest is woken before its deadlines (port/advance.c)
STARTS = const(0xB50 // 4)  # starts and resets of the guest
COMPLETED = const(0xB70 // 4)  # an instruction was completed for the guest while DR7 enables a breakpoint
DR7 = const(0xB78 // 4)
TIMED = const(0xB60 // 4)  # entries for a timer's deadline
LAST_DUE = const(0xB68 // 4)  # the deadline before
CS_BASE = const(0xB90 // 4)
CR0 = const(0xB98 // 4)  # GUEST_CR0, not as the guest sees it; likewise CR4
CR4 = const(0xBA0 // 4)
ENTRY_CONTROLS = const(0xBA8 // 4)
ALLOCATED = const(0xB80 // 4)  # blocks of the heap that its exits have allocated since the last collection
PARKED = const(0xB88 // 4)  # bit n: timer n has no effect until the guest has run
SS_RIGHTS = const(0xBB0 // 4)
CR0_SHADOW = const(0xBB8 // 4)
SIBLING = const(0xBC0 // 4)  # hpa of the frame of the guest's next vCPU, in a ring; 0: it has no other
ORDERED = const(0xBC8 // 4)  # the guest's interleave says which of its vCPUs runs (vmm/scheduling/interleave.py)
LSTAR = const(0xBD0 // 4)  # the guest's IA32_LSTAR while the monitor has replaced it (vmm/policies/entries.py)
TASK = const(0xBD8 // 4)  # hpa of Linux's pointer to the current task, 0: not known (vmm/insight/linux/current.py)
TASK_KNOWN = const(0xBE0 // 4)  # the task of the next two, which are hpas of its PID and name
TASK_PID = const(0xBE8 // 4)
TASK_COMM = const(0xBF0 // 4)
STEPPED = const(0xBF8 // 4)  # an instruction is being stepped (vmm/policies/stepper.py)
RECORDED = const(0xE00 // 4)  # exits are recorded or measured: these words are in use
TRACE_RING = const(0xE08 // 4)  # hpa of the records of exits (vmm/vtx/recording.py), 0: none
TRACE_MASK = const(0xE10 // 4)  # records in the ring, minus 1
TRACE_HEAD = const(0xE18 // 4)  # records written so far
TRACE_OPEN = const(0xE20 // 4)  # hpa of the record whose duration is not known yet
TRACE_HOST = const(0xE28 // 4)  # HOST_TICKS when that exit occurred
MEASURED = const(0xE30 // 4)  # hpa of the slots' distributions, 0: none
MEASURED_SLOT = const(0xE38 // 4)  # 1 + the slot whose exit is not over yet, else 0
TRACE_BETWEEN = const(0xE40 // 4)  # the part of HOST_TICKS that belongs to no recorded or measured exit
STOPPED = const(0xE48 // 4)  # host TSC since which the guest's clock stands still, 0: it runs (vmm/scheduling/stops.py)
UNSEEN = const(0xE50 // 4)  # ticks of a stop's exit and entry that the guest would see (vmm/vtx/trial.py)
STORED = const(0xC00 // 4)  # two words each: MSRs stored in the frame (vmm/handlers/msr.py)
STORED_MSRS = const(64)

# Bits of WANTS[reason]: words that are read at an exit in addition to the reason, RIP, RSP, RFLAGS, the qualification
# and the instruction length. Lower bits are cheaper.
WANT_DR7 = const(1 << 0)  # for handlers that emulate accesses to memory or ports (breakpoints.py)
WANT_LINEAR = const(1 << 1)
WANT_GPA = const(1 << 2)
WANT_INTR = const(3 << 3)  # information and error code
WANT_VECTORING = const(3 << 5)  # information and error code
WANT_INSTR_INFO = const(1 << 7)
WANT_CODE = const(3 << 8)  # CR3 and the access rights of CS
WANT_CS_RIGHTS = const(1 << 9)
WANT_PAGING = const(15 << 10)  # base of CS, CR0, CR4 and the entry controls
WANT_MODE = const(1 << 9 | 3 << 12)  # access rights of CS, CR4, the entry controls
WANT_SS_RIGHTS = const(1 << 14)
WANT_CR0 = const(1 << 11 | 3 << 14)  # CR0, access rights of SS, read shadow of CR0

# Bits of DIRTY: words to be written to the VMCS at the next entry.
DIRTY_RIP = const(1 << 0)
DIRTY_RSP = const(1 << 1)
DIRTY_RFLAGS = const(1 << 2)
DIRTY_ENTRY = const(1 << 3)
DIRTY_TSC_OFFSET = const(1 << 4)
DIRTY_TIMERS = const(1 << 5)  # DEADLINE is to be recomputed
DIRTY_CONTROLS = const(1 << 6)
DIRTY_RVI = const(1 << 7)
