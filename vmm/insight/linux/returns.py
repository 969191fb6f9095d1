"""The places in Linux where a system call has its result and has not returned to the program yet.

All calls by SYSCALL go through do_syscall_64. Behind its CALL in entry_SYSCALL_64 the result is in the saved registers,
to which RSP points, whatever the way back is: SYSRET, or IRET after a signal, ptrace or execve. A child of fork, vfork,
clone or clone3 begins in ret_from_fork, and leaves that for swapgs_restore_regs_and_return_to_usermode.
Source: Linux, arch/x86/entry/entry_64.S.
"""

import struct

from micropython import const

AX = const(80)  # offsets in struct pt_regs
CODE32 = const(0x23)  # CS of programs
CODE64 = const(0x33)
EXECVE = const(59)
EXECVEAT = const(322)
EXECVE_32 = const(11)  # of 32-bit programs
EXECVEAT_32 = const(358)

CALL = const(0xE8)
CALL_BYTES = const(5)
_JMP = const(0xE9)
_SIZE = const(0x180)  # bytes that are searched: a symbol's size ends at a label within the function


def places(kernel):
    """gvas of the places: the first behind do_syscall_64's CALL, then children's. ValueError without the first."""
    found = branches(kernel, ("entry_SYSCALL_64",), CALL, ("do_syscall_64",))
    if not found:
        raise ValueError("the guest's entry_SYSCALL_64 has no call of do_syscall_64: its returns are not found")
    out = [found[0] + CALL_BYTES]
    ends = "swapgs_restore_regs_and_return_to_usermode", "common_interrupt_return"
    out += branches(kernel, ("ret_from_fork_asm", "ret_from_fork"), _JMP, ends)[:1]
    return out


def branches(kernel, names, opcode, targets):
    """gvas of the CALLs or JMPs in the first of these functions that lead to one of the targets."""
    wanted = [gva for target in targets for gva in kernel.symbols.all(target)]
    for name in names:
        start = kernel.symbols.get(name)
        if start is None:
            continue
        code = kernel.space.read(start, _SIZE)
        found = []
        for at in range(len(code) - 4):
            if code[at] == opcode and start + at + 5 + struct.unpack_from("<i", code, at + 1)[0] in wanted:
                found.append(start + at)
        if found:
            return found
    return []
