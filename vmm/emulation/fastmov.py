"""MOV and MOVZX between memory and a register, decoded and executed in viper.

Nearly every access to a device's registers is one of these two. An exit that gives the gpa needs no address: decode()
returns length, size and register as one number, load() and source() move the value. For everything else (16-bit
addressing, 8-byte immediates, other instructions) decode() returns 0, and vmm/emulation/decode.py takes over. Nothing
allocates. A decoded number depends on the instruction's bytes only, so it can be cached. Source: SDM Vol. 2A,
"Instruction Format".

The number: bits 3:0 length; 7:4 bytes accessed; 11:8 register; 12 set if byte register 4-7 is AH-BH; 13 memory is
written; 14 the source is an immediate (the last bytes); 19:16 bytes of the register that a read changes, 4 clears the
upper half. A MOV of 8 bytes has the number that fastops.py executes: bit 15 memory is the first operand; 20 OTHER;
26:21 the operation.

address() encodes the operand's address, as far as its offset in the page depends on it: bits 4:0 base register, or
BASE_NONE, BASE_RIP; 9:5 index register, or BASE_NONE; 11:10 log2 of the scale; 14:12 segment (in the order of
vmm/emulation/decode.py); 26:15 the low 12 bits of the displacement.
"""

import micropython
from micropython import const

from vmm.emulation.decode import DS, REX_B, REX_R, REX_W, REX_X, SS
from vmm.emulation.opcodes import MOV

LENGTH = const(15)
HIGH = const(1 << 12)
WRITE = const(1 << 13)
IMMEDIATE = const(1 << 14)
MEMORY_FIRST = const(1 << 15)
OTHER = const(1 << 20)

BASE_NONE = const(16)
BASE_RIP = const(17)
NO_ADDRESS = const(1 << 27)


# Instructions, call included, unix port -O2, callgrind: decode 410, load 330, source 380.
@micropython.viper
def decode(code: ptr8, bits: int) -> int:
    """The number for the instruction at `code` in 32- or 64-bit mode; 0: not one of these.

    `code` must have 15 readable bytes.
    """
    at = 0
    rex = 0
    full = 4
    byte = int(code[0])
    if byte == 0x66:
        full = 2
        at = 1
        byte = int(code[1])
    if byte >= 0x40 and byte < 0x50 and bits == 64:
        rex = byte
        if rex & REX_W:
            full = 8
        at += 1
        byte = int(code[at])
    at += 1
    if bits < 32:
        return 0
    result = 0
    size = full
    into = full
    immediate = 0
    if byte & 0xFC == 0x88:
        if not byte & 1:
            size = into = 1
        if not byte & 2:
            result = WRITE
        if size == 8:
            result |= OTHER | MOV << 21
            if result & WRITE:
                result |= MEMORY_FIRST
    elif byte & 0xFC == 0xA0:
        if not byte & 1:
            size = into = 1
        if byte & 2:
            result = WRITE
        if size == 8:
            return 0
        return result | at + (bits >> 3) | size << 4 | into << 16
    elif byte & 0xFE == 0xC6:
        if not byte & 1:
            size = into = 1
        immediate = 4 if size > 4 else size
        result = WRITE | IMMEDIATE
    elif byte == 0x0F:
        byte = int(code[at])
        at += 1
        if byte == 0xB6:
            size = 1
        elif byte == 0xB7:
            size = 2
        else:
            return 0
    else:
        return 0
    if size == 8 and not result & OTHER:
        return 0
    modrm = int(code[at])
    at += 1
    mod = modrm >> 6
    rm = modrm & 7
    reg = modrm >> 3 & 7
    if mod == 3 or (immediate and reg):
        return 0
    if rm == 4:
        if mod == 0 and int(code[at]) & 7 == 5:
            at += 4
        at += 1
    elif mod == 0 and rm == 5:
        at += 4
    if mod == 1:
        at += 1
    elif mod == 2:
        at += 4
    at += immediate
    if rex & REX_R:
        reg += 8
    elif into == 1 and reg >= 4 and not rex:
        result |= HIGH
        reg -= 4
    if immediate:
        reg = 0
    return result | at | size << 4 | reg << 8 | into << 16


@micropython.viper
def address(code: ptr8, bits: int) -> int:
    """How the operand's address is computed, for an instruction that decode() knows (see above)."""
    at = 0
    rex = 0
    byte = int(code[0])
    if byte == 0x66:
        at = 1
        byte = int(code[1])
    if byte >= 0x40 and byte < 0x50 and bits == 64:
        rex = byte
        at += 1
        byte = int(code[at])
    at += 1
    if byte & 0xFC == 0xA0:
        return BASE_NONE | BASE_NONE << 5 | DS << 12 | (int(code[at]) | int(code[at + 1]) << 8) << 15 & 0x7FF8000
    if byte == 0x0F:
        at += 1
    mod = int(code[at]) >> 6
    base = int(code[at]) & 7
    index = int(BASE_NONE)
    scale = 0
    at += 1
    if base == 4:
        sib = int(code[at])
        at += 1
        base = sib & 7
        scale = sib >> 6
        index = sib >> 3 & 7
        if rex & REX_X:
            index += 8
        if index == 4:
            index = int(BASE_NONE)
            scale = 0
        if base == 5 and mod == 0:
            base = int(BASE_NONE)
    elif base == 5 and mod == 0:
        base = int(BASE_RIP) if bits == 64 else int(BASE_NONE)
    displacement = 0
    if mod == 1:
        displacement = int(code[at])
        if displacement & 0x80:
            displacement |= 0xF00
    elif mod == 2 or base >= BASE_NONE:
        displacement = (int(code[at]) | int(code[at + 1]) << 8) & 0xFFF
    if base < 8 and rex & REX_B:
        base += 8
    segment = int(SS) if base == 4 or base == 5 else int(DS)
    return base | index << 5 | scale << 10 | segment << 12 | displacement << 15


@micropython.viper
def load(registers: ptr32, number: int, value: int):
    """Put `value`, just read from memory, into the register that `number` names.

    `registers` has two 32-bit words for each of RAX to R15, low half first.
    """
    at = (number >> 8 & 15) << 1
    into = number >> 16 & 15
    old = int(registers[at])
    if into >= 4:
        registers[at] = value
        registers[at + 1] = 0
    elif into == 2:
        registers[at] = old & 0xFFFF0000 | value & 0xFFFF
    elif number & HIGH:
        registers[at] = old & 0xFFFF00FF | (value & 0xFF) << 8
    else:
        registers[at] = old & 0xFFFFFF00 | value & 0xFF


@micropython.viper
def source(registers: ptr32, number: int, code: ptr8) -> int:
    """The value that the instruction writes to memory: a register's, or its immediate."""
    size = number >> 4 & 15
    if number & IMMEDIATE:
        at = (number & LENGTH) - size
        value = int(code[at])
        if size >= 2:
            value |= int(code[at + 1]) << 8
        if size == 4:
            value |= int(code[at + 2]) << 16 | int(code[at + 3]) << 24
        return value
    value = int(registers[(number >> 8 & 15) << 1])
    if number & HIGH:
        value >>= 8
    if size == 1:
        return value & 0xFF
    if size == 2:
        return value & 0xFFFF
    return value & 0xFFFFFFFF
