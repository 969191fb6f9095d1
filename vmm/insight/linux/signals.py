"""Arguments and result of a system call that a signal has interrupted on its way back: the saved registers lack them.

RIP then differs from RCX, in which SYSCALL has saved it. Where the program is to repeat the call, RIP is at the
SYSCALL. Where a handler runs first, the registers are the handler's, and the call's are in the signal frame to which
RSP points. Limits: with several handlers at once the frame of the last has another handler's registers, and the call is
reported as the registers show it; so are calls of 32-bit programs, which use RCX themselves. Source: Linux,
arch/x86/kernel/signal.c and signal_64.c, arch/x86/include/uapi/asm/sigcontext.h.
"""

import struct

from micropython import const

from vmm.vtx.x86 import MASK64

RESTART = const(-512)  # ERESTARTSYS: 513 and 514 look the same afterwards
RESTART_BLOCK = const(-516)  # the program is to call restart_syscall
RESTART_SYSCALL = const(219)
SYSCALL = const(2)  # bytes of the instruction
# Words of struct pt_regs
AX = const(10)
CX = const(11)
IP = const(16)
SP = const(19)
# Offset of the struct sigcontext in a struct rt_sigframe, and words of it.
FRAME = const(48)
FRAME_BYTES = const(144)
FRAME_R8 = const(0)
FRAME_R9 = const(1)
FRAME_R10 = const(2)
FRAME_DI = const(8)
FRAME_SI = const(9)
FRAME_DX = const(12)
FRAME_AX = const(13)
FRAME_CX = const(14)
FRAME_IP = const(16)


def undone(words, space):
    """(the six arguments, or None where the registers have them; the result) of an interrupted call; None for others.

    words: the 21 of the struct pt_regs of a 64-bit program's call that is over; space: the program's.
    """
    cx = words[CX]
    if not cx or words[IP] == cx:  # RCX is 0 behind execve
        return None
    if words[IP] + SYSCALL == cx:
        return None, RESTART_BLOCK if words[AX] == RESTART_SYSCALL else RESTART
    try:
        kept = struct.unpack("<18Q", space.read(words[SP] + FRAME & MASK64, FRAME_BYTES))
    except ValueError:
        return None
    if kept[FRAME_CX] != cx:
        return None
    result = kept[FRAME_AX]
    result = RESTART if kept[FRAME_IP] + SYSCALL == cx else result - (result >> 63 << 64)
    return tuple([kept[at] for at in (FRAME_DI, FRAME_SI, FRAME_DX, FRAME_R10, FRAME_R8, FRAME_R9)]), result
