"""Where Linux has a system call's result and has not gone back to the program yet.

All calls by SYSCALL come through do_syscall_64, and behind its CALL in entry_SYSCALL_64 the result is in the saved
registers, which RSP leads to, whatever the way back is: SYSRET, or IRET after a signal, ptrace or execve. A child of
fork, vfork, clone or clone3 begins in ret_from_fork, and leaves that for swapgs_restore_regs_and_return_to_usermode.
Source: Linux, arch/x86/entry/entry_64.S.
"""

import struct

from micropython import const

AX = const(80)  # offsets in struct pt_regs

CALL = const(0xE8)
CALL_BYTES = const(5)
_JMP = const(0xE9)
_SIZE = const(0x180)  # bytes that are looked through; the symbols have labels within the functions


def places(kernel):
    """gvas: the first is behind do_syscall_64, the rest are of children. ValueError where the first is not found."""
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
