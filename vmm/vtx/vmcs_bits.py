"""Bits of VMCS fields that more than one module needs.

SDM Vol. 3C, "Guest Register State", "Guest Non-Register State", "Processor-Based VM-Execution Controls",
"VM-Entry Controls", "Exit Qualification for I/O Instructions", "Exit Qualification for Control-Register Accesses",
"Exit Qualification for EPT Violations".
"""

from micropython import const

# GUEST_INTERRUPTIBILITY_STATE
BLOCKING_BY_STI = const(1 << 0)
BLOCKING_BY_MOV_SS = const(1 << 1)
BLOCKING_BY_STI_MOV_SS = const(3)
BLOCKING_BY_NMI = const(1 << 3)

# GUEST_PENDING_DEBUG_EXCEPTIONS
PENDING_ENABLED = const(1 << 12)  # an enabled breakpoint has matched
PENDING_BS = const(1 << 14)
PENDING_RTM = const(1 << 16)

# PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS
CONTROL_INTERRUPT_WINDOW = const(1 << 2)
CONTROL_NMI_WINDOW = const(1 << 22)
CONTROL_MONITOR_TRAP_FLAG = const(1 << 27)
CONTROL_PAUSE_EXITING = const(1 << 30)

# SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS
CONTROL_WBINVD_EXITING = const(1 << 6)

# VM_ENTRY_CONTROLS
ENTRY_IA32E_MODE_GUEST = const(1 << 9)

# EXIT_QUALIFICATION of I/O instructions
IO_SIZE = const(7)  # bytes - 1
IO_IN = const(1 << 3)
IO_STRING = const(1 << 4)
IO_PORT_SHIFT = const(16)
IO_PORT = const(0xFFFF << 16)

# EXIT_QUALIFICATION of control-register accesses
CR_NUMBER = const(15)
CR_TYPE = const(3 << 4)
CR_MOV_TO = const(0 << 4)
CR_MOV_FROM = const(1 << 4)
CR_GPR = const(15 << 8)
CR_GPR_SHIFT = const(8)
CR_GPR_RSP = const(4 << 8)

# EXIT_QUALIFICATION of EPT violations
EPT_READ = const(1 << 0)
EPT_WRITE = const(1 << 1)
EPT_FETCH = const(1 << 2)
EPT_LINEAR_VALID = const(1 << 7)
EPT_TRANSLATED = const(1 << 8)  # else an access to a paging structure
EPT_NMI_UNBLOCKING = const(1 << 12)  # by IRET

# Types of INVEPT and INVVPID
INVEPT_SINGLE_CONTEXT = const(1)
INVVPID_SINGLE_CONTEXT = const(1)
INVVPID_RETAINING_GLOBALS = const(3)

# Access rights of a segment
RIGHTS_ACCESSED = const(1 << 0)
RIGHTS_WRITABLE = const(1 << 1)  # of data; code: readable
RIGHTS_EXPAND_DOWN = const(1 << 2)  # of data; code: conforming
RIGHTS_CODE = const(1 << 3)
RIGHTS_S = const(1 << 4)  # code or data
RIGHTS_DPL = const(3 << 5)
RIGHTS_DPL_SHIFT = const(5)
RIGHTS_P = const(1 << 7)
RIGHTS_L = const(1 << 13)  # 64-bit code
RIGHTS_DB = const(1 << 14)
RIGHTS_UNUSABLE = const(1 << 16)
