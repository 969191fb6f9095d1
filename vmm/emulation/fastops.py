"""Instructions with one memory operand and a register or immediate, executed in viper.

encode() turns what vmm/emulation/decode.py found into a number that depends on the instruction's bytes only, so that it
can be cached; operate() executes it without allocating. MOV, MOVZX, MOVSX, arithmetic, logic, exchanges, bit tests,
SETcc and CMOVcc are here; 8-byte operands for MOV only. Everything else goes to vmm/emulation/emulate.py. Source: SDM
Vol. 2, each instruction; Vol. 1, "EFLAGS Register".

The number is that of vmm/emulation/fastmov.py, extended: OTHER is set in all numbers from here; 30:27 the condition.
"""

import micropython

from vmm.emulation import opcodes as o
from vmm.emulation.alu import AF, CF, OF, PF, SF, STATUS, ZF
from vmm.emulation.decode import NONE, RIP
from vmm.emulation.fastmov import BASE_NONE, BASE_RIP, HIGH, IMMEDIATE, MEMORY_FIRST, NO_ADDRESS, OTHER, WRITE, load
from vmm.emulation.opcodes import (
    ADC,
    ADD,
    AND,
    BT,
    BTC,
    BTR,
    BTS,
    CMOV,
    CMP,
    CMPXCHG,
    DEC,
    INC,
    MOV,
    MOVSX,
    MOVZX,
    NEG,
    NOT,
    OR,
    SBB,
    SETCC,
    TEST,
    XADD,
    XCHG,
    XOR,
)
from vmm.vtx.frame import DIRTY, DIRTY_RFLAGS, RFLAGS

_UP_TO_8 = (o.MOV, o.MOVZX, o.MOVSX)
_KNOWN = tuple(range(o.ADD, o.BTC + 1)) + (o.CMOV, o.SETCC)
_IMMEDIATES = (o.E_I, o.E_I8)
_TO_REGISTER = (o.G_E, o.G_EB, o.G_EW, o.G_ED, o.A_O)


def encode(insn):
    """Return (number, 32-bit immediate, operand's address) of a decoded Instruction; (0, 0, 0): not one of these.

    The address is encoded as vmm/emulation/fastmov.py's address() does it.
    """
    form = insn.form
    size = insn.mem_size
    if insn.op not in _KNOWN or form in (o.STRING, o.E_S) or (size == 8 and insn.op not in _UP_TO_8):
        return 0, 0, 0
    number = OTHER | insn.op << 21 | insn.cond << 27 | insn.length | size << 4 | insn.size << 16
    register = insn.reg
    if insn.size == 1 and not insn.rex and register & 12 == 4:
        register -= 4
        number |= HIGH
    if form in _IMMEDIATES or insn.op == o.SETCC:
        register = 0
        number &= ~HIGH
    if form in _IMMEDIATES:
        number |= IMMEDIATE
    if form not in _TO_REGISTER:
        number |= MEMORY_FIRST
    if o.access(insn.op, form) & o.WRITE:
        number |= WRITE
    return number | register << 8, insn.imm & 0xFFFFFFFF, _place(insn)


def _place(insn):
    """The operand's address, encoded as far as its offset in the page depends on it."""
    if o.BT <= insn.op <= o.BTC and insn.form == o.E_G:
        return NO_ADDRESS  # the bit number is part of the address
    base = BASE_RIP if insn.base == RIP else BASE_NONE if insn.base == NONE else insn.base
    index = BASE_NONE if insn.index == NONE else insn.index
    scale = {1: 0, 2: 1, 4: 2, 8: 3}[insn.scale]
    return base | index << 5 | scale << 10 | insn.segment << 12 | (insn.disp & 0xFFF) << 15


@micropython.viper
def holds(condition: int, flags: int) -> int:
    """1 where condition code 0-15 of Jcc, SETcc and CMOVcc holds, else 0."""
    pair = condition >> 1
    found = 0
    if pair == 0:
        found = flags & OF
    elif pair == 1:
        found = flags & CF
    elif pair == 2:
        found = flags & ZF
    elif pair == 3:
        found = flags & (CF | ZF)
    elif pair == 4:
        found = flags & SF
    elif pair == 5:
        found = flags & PF
    else:
        found = (flags >> 7 ^ flags >> 11) & 1  # SF, OF
        if pair == 7:
            found |= flags & ZF
    if found:
        found = 1
    return found ^ condition & 1


@micropython.viper
def _move(number: int, immediate: int, read, write, offset: int, registers: ptr32):
    """MOV, MOVZX and MOVSX."""
    at = number >> 7 & 30
    size = number >> 4 & 15
    if number & WRITE:
        low = int(registers[at])
        high = int(registers[at + 1])
        if number & IMMEDIATE:
            low = immediate
            high = 0xFFFFFFFF if immediate >> 31 & 1 else 0
        elif number & HIGH:
            low >>= 8
        if size == 8:
            write(offset, 8, uint(low) | uint(high) << 32)
        else:
            write(offset, size, low & ((1 << (size << 3)) - 1))
        return
    if size == 8:
        wide = uint(read(offset, 8))
        registers[at] = int(wide & uint(0xFFFFFFFF))
        registers[at + 1] = int(wide >> uint(32))
        return
    bits = size << 3
    value = int(read(offset, size)) & ((1 << bits) - 1)
    if number >> 21 & 63 == MOVSX and value >> (bits - 1):
        value -= 1 << bits
    load(registers, number, value & 0xFFFFFFFF)
    if number >> 16 & 15 == 8 and value < 0:
        registers[at + 1] = 0xFFFFFFFF


@micropython.viper
def _bit(number: int, source: int, old: int, write, offset: int, registers: ptr32):
    """BT, BTS, BTR and BTC of bit `source` of the operand `old`."""
    op = number >> 21 & 63
    size = number >> 4 & 15
    bit = 1 << (source & ((size << 3) - 1))
    if op == BTS:
        write(offset, size, old | bit)
    elif op == BTR:
        write(offset, size, old & ~bit)
    elif op == BTC:
        write(offset, size, old ^ bit)
    registers[RFLAGS] = int(registers[RFLAGS]) & 0xFFFFFFFE | (1 if old & bit else 0)
    registers[DIRTY] |= DIRTY_RFLAGS


# One long function: sums and flags in functions of their own would be two calls of 200 ticks each, of the 2,084 that an
# OR to the I/O APIC's window takes.
@micropython.viper
def operate(number: int, immediate: int, read, write, offset: int, vcpu):
    """Execute the instruction of a number with OTHER on the frame's registers and flags.

    read(offset, size), write(offset, size, value): its operand in memory.
    """
    op = number >> 21 & 63
    if op == MOV or op == MOVZX or op == MOVSX:
        _move(number, immediate, read, write, offset, vcpu)
        return
    f = ptr32(vcpu)
    size = number >> 4 & 15
    bits = size << 3
    mask = (1 << bits) - 1
    flags = int(f[RFLAGS])
    if op == SETCC:
        write(offset, 1, holds(number >> 27 & 15, flags))
        return
    source = int(f[number >> 7 & 30])
    if number & IMMEDIATE:
        source = immediate
    elif number & HIGH:
        source >>= 8
    source &= mask
    old = int(read(offset, size)) & mask
    if op == XCHG:
        write(offset, size, source)
        load(vcpu, number, old)
        return
    if op == NOT:
        write(offset, size, old ^ mask)
        return
    if op == CMOV:
        if int(holds(number >> 27 & 15, flags)) == 0:
            old = source
        load(vcpu, number, old)
        return
    changed = int(STATUS)
    found = 0  # status flags of the result
    a = old
    b = source
    if number & MEMORY_FIRST == 0:
        a = source
        b = old
    if op >= BT and op <= BTC:
        _bit(number, source, old, write, offset, vcpu)
        return
    if op == AND or op == TEST:
        a &= b
    elif op == OR:
        a |= b
    elif op == XOR:
        a ^= b
    else:
        carry = 0
        if op == INC or op == DEC:
            b = 1
            changed = STATUS ^ CF
        elif op == NEG:
            b = a
            a = 0
        elif op == CMPXCHG:
            b = old
            a = int(f[0]) & mask
        elif op == ADC or op == SBB:
            carry = flags & CF
        result = 0
        if op == ADD or op == ADC or op == XADD or op == INC:
            result = a + b + carry
            if result >> bits:
                found = int(CF)
            result &= mask
            if ((a ^ result) & (b ^ result)) >> (bits - 1):
                found |= OF
        else:  # SUB, SBB, CMP, NEG, DEC, CMPXCHG
            result = (a - b - carry) & mask
            if a < b + carry:
                found = int(CF)
            if ((a ^ b) & (a ^ result)) >> (bits - 1):
                found |= OF
        found |= (a ^ b ^ result) & AF
        a = result
    if a == 0:
        found |= ZF
    if a >> (bits - 1):
        found |= SF
    low = a & 0xFF
    low ^= low >> 4
    if 0x6996 >> (low & 15) & 1 == 0:
        found |= PF
    if op == CMPXCHG:
        if found & ZF:
            write(offset, size, source)
        else:
            write(offset, size, old)
            load(vcpu, size << 16, old)  # the accumulator
    elif number & WRITE:
        write(offset, size, a)
        if op == XADD:
            load(vcpu, number, old)
    elif number & MEMORY_FIRST == 0:
        if op != CMP:
            load(vcpu, number, a)
    f[RFLAGS] = flags & (changed ^ 0xFFFFFFFF) | found & changed
    f[DIRTY] |= DIRTY_RFLAGS
