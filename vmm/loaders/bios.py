"""Interrupt vectors and service routines of a BIOS in a guest's memory, for programs that are entered in real mode.

A service's routine asks the monitor by VMCALL (vmm/handlers/bios.py) and returns. The timer's also calls INT 1Ch and
sends the EOI; the other interrupts' only send it. The routines lie where a PC has its BIOS, behind the MP table.
Source: IBM PC/AT Technical Reference, "ROM BIOS".
"""

import struct

from micropython import const

SEGMENT = const(0xF000)
CALLS = const(0x200)  # number of the VMCALL for interrupt 0; the others follow
SERVICES = (0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1A)
TIMER = const(0x08)
TICKS = const(0x46C)  # gpa of the tick count in the BIOS data area, 18.2 a second

_ROUTINES = const(0x2000)  # offset in the segment
_SIZE = const(32)
_IRET = const(0xFF53)
_MODEL = const(0xFFFE)
_DISKETTE = const(0xEFC7)  # the diskette parameters: the same address in every BIOS
_WAITING = (0x15, 0x16, 0x18, 0x19)  # routines that halt and ask again while the monitor sets CF
_MASTER = tuple(range(0x09, 0x10))
_SLAVE = tuple(range(0x70, 0x78))


def _ask(vector, waits):
    """push eax; again: mov eax, number; clc; vmcall; (jnc done; sti; hlt; jmp again; done:) add sp, 4"""
    code = b"\x66\x50\x66\xb8" + struct.pack("<I", CALLS + vector) + b"\xf8\x0f\x01\xc1"
    if waits:
        code += b"\x73\x04\xfb\xf4\xeb\xf0"
    return code + b"\x83\xc4\x04"


def routine(vector):
    """Machine code of an interrupt's routine; b'' for one that only returns."""
    if vector == TIMER:  # then int 1Ch; the 8259 gets its EOI
        return _ask(vector, False) + b"\xcd\x1c\x50\xb0\x20\xe6\x20\x58\xcf"
    if vector in SERVICES:
        return _ask(vector, vector in _WAITING) + b"\xcf"
    if vector in _MASTER:
        return b"\x50\xb0\x20\xe6\x20\x58\xcf"
    if vector in _SLAVE:
        return b"\x50\xb0\x20\xe6\xa0\xe6\x20\x58\xcf"
    return b""


def install(memory):
    """Writes vectors and routines. The guest has at least 1 MiB."""
    base = SEGMENT << 4
    vectors = bytearray(1024)
    at = _ROUTINES
    for vector in range(256):
        code = routine(vector)
        if code:
            memory.write(base + at, code)
            struct.pack_into("<HH", vectors, 4 * vector, at, SEGMENT)
            at += _SIZE
        elif vector not in (0x1D, 0x1F, 0x41, 0x43, 0x46):  # pointers to tables, which are absent
            struct.pack_into("<HH", vectors, 4 * vector, _IRET, SEGMENT)
    struct.pack_into("<HH", vectors, 4 * 0x1E, _DISKETTE, SEGMENT)
    memory.write(base + _DISKETTE, b"\xdf\x02\x25\x02\x12\x1b\xff\x6c\xf6\x0f\x08")
    memory.write(base + _IRET, b"\xcf")
    memory.write(base + 0xFFF0, b"\xcd\x19\xeb\xfe")  # the reset vector: int 19h
    memory.write(base + _MODEL, b"\xfc")
    memory.write(0, vectors)
