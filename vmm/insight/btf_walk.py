"""Walks over the records of a BTF section in place, in viper: each value is checked in the step that reads it."""

import cpu
import micropython
from micropython import const

KINDS = const(20)  # kinds are numbers below it
RECORD = const(12)  # bytes of a type's record
STRIDE = const(32)  # types for one mark
_LOOK = const(128)  # parts of a type between two looks for guests above: an enumeration has up to 65,535


@micropython.viper
def scan(types: int, length: int, shape: ptr8, marks: ptr32) -> int:
    """Count the types, and mark the offset of each 32nd; returns the count, or -1 - offset of the first broken type."""
    at = 0
    count = 0
    look = cpu.look
    while at < length:
        if at + RECORD > length:
            return -1 - at
        if count & (STRIDE - 1) == 0:
            look()  # due guests of higher priority preempt here
            marks[count // STRIDE] = at
        info = int(ptr32(types + at)[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= KINDS:
            return -1 - at
        size = RECORD + int(shape[kind]) + int(shape[KINDS + kind]) * (info & 0xFFFF)
        if at + size > length:
            return -1 - at
        at += size
        count += 1
    return count


@micropython.viper
def following(types: int, length: int, shape: ptr8, at: int, steps: int) -> int:
    """The offset of the type so many types after the one at `at`; -1 at the end, or where one is broken."""
    while True:
        if at + RECORD > length:
            return -1
        if steps == 0:
            return at
        info = int(ptr32(types + at)[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= KINDS:
            return -1
        at += RECORD + int(shape[kind]) + int(shape[KINDS + kind]) * (info & 0xFFFF)
        steps -= 1


@micropython.viper
def find(
    types: int, end: int, strings: int, string_length: int, since: int,
    shape: ptr8, at: int, wanted: int, name: ptr8, size: int,
) -> int:  # fmt: skip
    """The offset of the next type from `at` on, before `end`, with a kind and name; -1: none.

    since: the offset of the first string.
    """
    first = int(name[0])
    look = cpu.look
    left = 0
    while at + RECORD <= end:
        if left == 0:
            look()
            left = STRIDE
        left -= 1
        record = ptr32(types + at)
        info = int(record[1])
        kind = info >> 24 & 31
        if kind == 0 or kind >= KINDS:
            return -1
        if kind == wanted:
            offset = int(record[0]) - since
            if offset >= 0 and offset + size < string_length:
                text = ptr8(strings + offset)
                if int(text[0]) == first and int(text[size]) == 0:
                    i = 1
                    while i < size and text[i] == name[i]:
                        i += 1
                    if i >= size:
                        return at
        at += RECORD + int(shape[kind]) + int(shape[KINDS + kind]) * (info & 0xFFFF)
    return -1


@micropython.viper
def named(part: int, count: int, step: int, strings: int, string_length: int, since: int, name: ptr8, size: int) -> int:
    """The number of the part, of `step` bytes, that has this name; -1: none."""
    number = 0
    look = cpu.look
    while number < count:
        if number & (_LOOK - 1) == 0:
            look()
        offset = int(ptr32(part)[0]) - since
        if offset >= 0 and offset + size < string_length:
            text = ptr8(strings + offset)
            if int(text[size]) == 0:
                i = 0
                while i < size and text[i] == name[i]:
                    i += 1
                if i >= size:
                    return number
        part += step
        number += 1
    return -1


@micropython.viper
def with_value(part: int, count: int, step: int, column: int, value: int) -> int:
    """The number of the part, of `step` bytes, whose u32 in a column is `value`; -1: none."""
    number = 0
    value &= 0xFFFFFFFF
    look = cpu.look
    while number < count:
        if number & (_LOOK - 1) == 0:
            look()
        if int(ptr32(part)[column]) == value:
            return number
        part += step
        number += 1
    return -1
