"""System calls as records in a ring outside Python's heap, written at the exit in viper; nothing is formatted there.

A record has what the vCPU and the guest's memory hold at that moment: the call's number, arguments and result, the
task, and bytes that arguments point to; a plan for each number says which. vmm/insight/linux/calllog.py reads records.
New ones overwrite the oldest. Positions in the ring count bytes since the log began, modulo 2**64.

At most CAPTURED bytes are copied for an argument, and only from the programs' half of the address space. Above 400
lines: the layout of a record and all functions that write one are in one file.
"""

import micropython
from micropython import const

from vmm.insight.linux.returns import CODE32, CODE64, EXECVE
from vmm.insight.linux.signals import (
    AX,
    CX,
    FRAME,
    FRAME_AX,
    FRAME_BYTES,
    FRAME_CX,
    FRAME_DI,
    FRAME_DX,
    FRAME_IP,
    FRAME_R8,
    FRAME_R9,
    FRAME_R10,
    FRAME_SI,
    IP,
    RESTART,
    RESTART_BLOCK,
    RESTART_SYSCALL,
    SP,
    SYSCALL,
)
from vmm.memory.look import walk
from vmm.vtx.frame import (
    CR3,
    CR4,
    EXIT_TSC,
    R8,
    R9,
    R10,
    RAX,
    RDI,
    RDX,
    RIP,
    RSI,
    RSP,
    TASK,
    TASK_COMM,
    TASK_KNOWN,
    TASK_PID,
)
from vmm.vtx.x86 import CR4_LA57, PAGE

# Words of a log
RING = const(0)  # two words: hpa
SIZE = const(2)  # bytes, a power of two
HEAD = const(3)  # two words: position behind the last record
TAIL = const(5)  # two words: position of the first
DROPPED = const(7)  # records that were overwritten
ROOT = const(8)  # two words: the kernel's page tables
SHIFT = const(10)
NUMBERS = const(1024)
PLANS = const(11)  # of each number: KNOWN, and four bits for each argument; then those of 32-bit programs' numbers
OPEN = const(PLANS + 2 * NUMBERS)  # threads with a call that has begun: PID, and the low half of the task's gva
OPENS = const(512)  # of them, by the low bits of the PID
WORDS = const(OPEN + 2 * OPENS)

# Of a record, 32-bit words
R_SIZE = const(0)  # bytes, a multiple of 8
R_KIND = const(1)
R_TSC = const(2)  # host TSC
R_PID = const(4)  # of the thread
R_TGID = const(5)  # of the process
R_COMM = const(6)  # 4
R_NUMBER = const(10)  # and a second word, 1: of 32-bit programs
R_RESULT = const(12)  # two words
R_ARGS = const(14)  # 6 times two words
HEADER = const(104)  # bytes; pieces follow
HEADER_FORMAT = "<IIQII16sIIq6Q"
PIECE_FORMAT = "<QII"  # gva, bytes, 0; the bytes follow, padded to a multiple of 8
PIECE = const(16)
MOST = const(1280)  # bytes of a record

# Kinds of records
FILLER = const(0)
ENTRY = const(1)
RESULT = const(2)

# What an argument points to: four bits of a plan, and bits of what a recorder copies
STRING = const(1)
STRINGS = const(2)  # pointers to strings
GIVEN = const(3)  # as many bytes as the next argument says
FILLED = const(4)  # as many bytes as the result says
KNOWN = const(1 << 31)

CAPTURED = const(33)  # bytes: those that are shown, and one that tells whether there are more
LISTED = const(8)  # pointers of STRINGS
_COMM = const(4)  # words
_HALF = const(47)  # bits of a program's address
# Of struct pt_regs, whose words are named by their numbers (include/uapi/asm/ptrace.h)
REGISTERS = const(168)  # bytes of it
_CS = const(34)


@micropython.viper
def _begin(words: int, kind: int, locate, place, vcpu) -> int:
    """Begin a record: make room, and fill in time and task; returns its address."""
    w = ptr32(words)
    f = ptr32(vcpu)
    ring = int(w[RING]) | int(w[RING + 1]) << 32
    size = int(w[SIZE])
    head = int(w[HEAD]) | int(w[HEAD + 1]) << 32
    at = head & size - 1
    if at + MOST > size:
        r = ptr32(ring + at)
        r[R_SIZE] = size - at
        r[R_KIND] = FILLER
        head += size - at
        w[HEAD] = head
        w[HEAD + 1] = head >> 32
        at = 0
    tail = int(w[TAIL]) | int(w[TAIL + 1]) << 32
    while head + MOST - tail > size:
        r = ptr32(ring + (tail & size - 1))
        tail += int(r[R_SIZE])
        if r[R_KIND]:
            w[DROPPED] = int(w[DROPPED]) + 1
    w[TAIL] = tail
    w[TAIL + 1] = tail >> 32
    at += ring
    r = ptr32(at)
    r[R_KIND] = kind
    r[R_TSC] = f[EXIT_TSC]
    r[R_TSC + 1] = f[EXIT_TSC + 1]
    # Whether the task is the one that the frame knows, as in current.of_task(): a call would take 180 ticks.
    hpa = int(f[TASK]) | int(f[TASK + 1]) << 32
    known = 0
    if hpa:
        s = ptr32(hpa)
        if s[0] == f[TASK_KNOWN] and s[1] == f[TASK_KNOWN + 1] and s[1]:
            known = 1
    if known == 0:
        known = int(locate(place, vcpu))
    if known == 0:
        i = int(R_PID)
        while i < R_NUMBER:
            r[i] = 0
            i += 1
        return at
    p = ptr32(int(f[TASK_PID]) | int(f[TASK_PID + 1]) << 32)
    r[R_PID] = p[0]
    r[R_TGID] = p[1]
    i = OPEN + 2 * (int(p[0]) & OPENS - 1)
    if kind == ENTRY:
        w[i] = p[0]
        w[i + 1] = f[TASK_KNOWN]
    elif w[i] == p[0]:
        w[i] = 0
    p = ptr32(int(f[TASK_COMM]) | int(f[TASK_COMM + 1]) << 32)
    i = 0
    while i < _COMM:
        r[R_COMM + i] = p[i]
        i += 1
    return at


@micropython.viper
def _piece(memory, root: int, shift: int, gva: int, size: int, at: int) -> int:
    """Copy `size` bytes at gva, as far as they are mapped, to a piece at `at`; returns the address behind it."""
    p = ptr32(at)
    p[0] = gva
    p[1] = gva >> 32
    done = 0
    while done < size:
        hpa = int(walk(memory, root, shift, gva + done, 1))
        if hpa < 0:
            break
        count = PAGE - (hpa & PAGE - 1)
        if count > size - done:
            count = size - done
        i = 0
        if (done & 3) == 0:
            source = ptr32(hpa)
            to = ptr32(at + PIECE + done)
            while i + 4 <= count:
                to[i >> 2] = source[i >> 2]
                i += 4
        bytes = ptr8(hpa)
        into = ptr8(at + PIECE + done)
        while i < count:
            into[i] = bytes[i]
            i += 1
        done += count
    p[2] = done
    p[3] = 0
    return at + PIECE + (done + 7 & 0xFFFFF8)


@micropython.viper
def _end(words: int, copies: int, memory, plan, at: int, vcpu):
    """Copy what the arguments point to, and make the record part of the ring."""
    w = ptr32(words)
    f = ptr32(vcpu)
    r = ptr32(at)
    end = at + HEADER
    number = int(r[R_NUMBER])
    wanted = 0
    if number < NUMBERS:
        if r[R_NUMBER + 1]:
            number += NUMBERS
        wanted = int(w[PLANS + number])
        if wanted == 0:
            plan(number)
            wanted = int(w[PLANS + number])
    wanted &= 0xFFFFFF
    root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    shift = 48 if f[CR4] & CR4_LA57 else 39
    i = int(R_ARGS)
    while wanted:
        what = wanted & 15
        gva = int(r[i]) | int(r[i + 1]) << 32
        if copies >> what & 1 and gva and gva >> _HALF == 0:
            size = CAPTURED
            if what == STRINGS:
                size = 8 * LISTED
            elif what == GIVEN:
                if int(r[i + 3]) == 0 and int(r[i + 2]) < CAPTURED:
                    size = int(r[i + 2])
            elif what == FILLED:
                if int(r[R_RESULT + 1]):
                    size = 0  # an error
                elif int(r[R_RESULT]) < CAPTURED:
                    size = int(r[R_RESULT])
            if size:
                first = end
                end = int(_piece(memory, root, shift, gva, size, end))
                if what == STRINGS:
                    p = ptr32(first)
                    size = int(p[2]) >> 3
                    p = ptr32(first + PIECE)
                    j = 0
                    while j < 2 * size:
                        gva = int(p[j]) | int(p[j + 1]) << 32
                        if gva == 0 or gva >> _HALF:
                            break
                        end = int(_piece(memory, root, shift, gva, CAPTURED, end))
                        j += 2
        wanted >>= 4
        i += 2
    r[R_SIZE] = end - at
    head = (int(w[HEAD]) | int(w[HEAD + 1]) << 32) + (end - at)
    w[HEAD] = head
    w[HEAD + 1] = head >> 32


@micropython.viper
def entry(words: int, copies: int, memory, locate, place, plan, vcpu):
    """Record the beginning of a call: the vCPU is at the kernel's entry point. copies: bits of STRING ... FILLED.

    plan(number) puts the plan of a call into the words; numbers of 32-bit programs begin with NUMBERS.
    """
    f = ptr32(vcpu)
    at = int(_begin(words, ENTRY, locate, place, vcpu))
    r = ptr32(at)
    r[R_NUMBER] = f[RAX]
    r[R_NUMBER + 1] = 0
    r[R_RESULT] = 0
    r[R_RESULT + 1] = 0
    r[R_ARGS] = f[RDI]
    r[R_ARGS + 1] = f[RDI + 1]
    r[R_ARGS + 2] = f[RSI]
    r[R_ARGS + 3] = f[RSI + 1]
    r[R_ARGS + 4] = f[RDX]
    r[R_ARGS + 5] = f[RDX + 1]
    r[R_ARGS + 6] = f[R10]
    r[R_ARGS + 7] = f[R10 + 1]
    r[R_ARGS + 8] = f[R8]
    r[R_ARGS + 9] = f[R8 + 1]
    r[R_ARGS + 10] = f[R9]
    r[R_ARGS + 11] = f[R9 + 1]
    _end(words, copies, memory, plan, at, vcpu)


@micropython.viper
def _saved(words: int, memory, vcpu) -> int:
    """hpa of the program's registers, struct pt_regs, which RSP leads to; 0: they are not there."""
    w = ptr32(words)
    f = ptr32(vcpu)
    gva = int(f[RSP]) | int(f[RSP + 1]) << 32
    hpa = int(walk(memory, int(w[ROOT]) | int(w[ROOT + 1]) << 32, int(w[SHIFT]), gva, 1))
    return 0 if hpa < 0 or hpa & PAGE - 1 > PAGE - REGISTERS else hpa


@micropython.viper
def _arguments_32(at: int, saved: int):
    """Fill in the arguments of a 32-bit program's call: EBX, ECX, EDX, ESI, EDI, EBP."""
    r = ptr32(at)
    s = ptr32(saved)
    r[R_NUMBER + 1] = 1
    i = int(R_ARGS)
    while i < R_ARGS + 12:
        r[i + 1] = 0
        i += 2
    r[R_ARGS] = s[10]
    r[R_ARGS + 2] = s[22]
    r[R_ARGS + 4] = s[24]
    r[R_ARGS + 6] = s[26]
    r[R_ARGS + 8] = s[28]
    r[R_ARGS + 10] = s[8]


@micropython.viper
def entry_32(words: int, copies: int, memory, locate, place, plan, sysenter: int, vcpu):
    """Record the beginning of a 32-bit program's call: the vCPU is at the CALL of the kernel's function. sysenter: gva
    of that CALL for SYSENTER, where EBP points to the last argument."""
    f = ptr32(vcpu)
    saved = int(_saved(words, memory, vcpu))
    if saved == 0:
        return
    at = int(_begin(words, ENTRY, locate, place, vcpu))
    r = ptr32(at)
    s = ptr32(saved)
    r[R_NUMBER] = s[20] if s[31] else s[30]  # from AX where INT 80H is entered like an exception
    r[R_RESULT] = 0
    r[R_RESULT + 1] = 0
    _arguments_32(at, saved)
    if f[RIP] == sysenter & 0xFFFFFFFF:
        root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
        hpa = int(walk(memory, root, 48 if f[CR4] & CR4_LA57 else 39, int(s[8]), 1))
        if hpa >= 0 and hpa & PAGE - 1 <= PAGE - 4:
            r[R_ARGS + 10] = ptr32(hpa)[0]
    _end(words, copies, memory, plan, at, vcpu)


@micropython.viper
def _word(words: ptr32, at: int) -> int:
    return int(words[2 * at]) | int(words[2 * at + 1]) << 32


@micropython.viper
def _undone(memory, at: int, saved: int, vcpu):
    """Fill in arguments and result of a call that a signal has interrupted on its way back, as signals.undone() does.
    The signal's frame is copied to the room of the record's pieces."""
    f = ptr32(vcpu)
    r = ptr32(at)
    cx = int(_word(saved, CX))
    result = int(RESTART)
    if int(_word(saved, IP)) + SYSCALL == cx:
        if int(_word(saved, AX)) == RESTART_SYSCALL:
            result = int(RESTART_BLOCK)
    else:
        room = at + HEADER
        root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
        _piece(memory, root, 48 if f[CR4] & CR4_LA57 else 39, int(_word(saved, SP)) + FRAME, FRAME_BYTES, room)
        p = ptr32(room)
        kept = room + PIECE
        if cx == 0 or p[2] != FRAME_BYTES or int(_word(kept, FRAME_CX)) != cx:
            return
        if int(_word(kept, FRAME_IP)) + SYSCALL != cx:
            result = int(_word(kept, FRAME_AX))
        k = ptr32(kept)
        i = 0
        while i < 2:
            r[R_ARGS + i] = k[2 * FRAME_DI + i]
            r[R_ARGS + 2 + i] = k[2 * FRAME_SI + i]
            r[R_ARGS + 4 + i] = k[2 * FRAME_DX + i]
            r[R_ARGS + 6 + i] = k[2 * FRAME_R10 + i]
            r[R_ARGS + 8 + i] = k[2 * FRAME_R8 + i]
            r[R_ARGS + 10 + i] = k[2 * FRAME_R9 + i]
            i += 1
    r[R_RESULT] = result
    r[R_RESULT + 1] = result >> 32


@micropython.viper
def result(words: int, copies: int, memory, locate, place, plan, old: int, vcpu):
    """Record the result of a call. old: 1: of a 32-bit program; calls from 32-bit code are, in any case."""
    saved = int(_saved(words, memory, vcpu))
    if saved == 0:
        return
    at = int(_begin(words, RESULT, locate, place, vcpu))
    r = ptr32(at)
    s = ptr32(saved)
    r[R_NUMBER] = s[30]
    r[R_RESULT] = s[20]
    r[R_RESULT + 1] = s[21]
    code = int(s[_CS]) & 0xFFFF
    if code == CODE32 or (old and not (int(s[30]) == EXECVE and code == CODE64)):  # execve of a 64-bit program
        _arguments_32(at, saved)
        _end(words, copies, memory, plan, at, vcpu)
        return
    r[R_NUMBER + 1] = 0
    r[R_ARGS] = s[28]
    r[R_ARGS + 1] = s[29]
    r[R_ARGS + 2] = s[26]
    r[R_ARGS + 3] = s[27]
    r[R_ARGS + 4] = s[24]
    r[R_ARGS + 5] = s[25]
    r[R_ARGS + 6] = s[14]
    r[R_ARGS + 7] = s[15]
    r[R_ARGS + 8] = s[18]
    r[R_ARGS + 9] = s[19]
    r[R_ARGS + 10] = s[16]
    r[R_ARGS + 11] = s[17]
    if s[2 * IP] != s[2 * CX]:
        _undone(memory, at, saved, vcpu)
    _end(words, copies, memory, plan, at, vcpu)
