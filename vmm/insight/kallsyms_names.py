"""The names of kallsyms, compressed as they lie in the guest's memory: loops over them in viper.

names, tokens and index are the tables that kallsyms.py describes; size and room are the bytes of the first two. Each
loop reads a symbol's length and spells its tokens itself, as far as it has to: a call would double the cost of a
symbol, and a kernel has a hundred thousand. Source: Linux, kernel/kallsyms.c.
"""

import cpu
import micropython
from micropython import const

LONGEST = const(512)  # characters of a name, with its type
_LOOK = const(256)  # symbols between two calls of cpu.look(), where due guests of higher priority preempt
_LOOK_SPELLED = const(8)  # the same where names are spelled


@micropython.viper
def skip(names: ptr8, at: int, size: int, count: int) -> int:
    """The offset behind `count` symbols; -1 where they pass `size`, or one is empty or too long."""
    look = cpu.look
    while count > 0:
        if count & (_LOOK - 1) == 0:
            look()
        if at + 2 > size:
            return -1
        length = names[at]
        at += 1
        if length & 0x80:
            length = (length & 0x7F) | (names[at] << 7)
            at += 1
        if length == 0 or length > LONGEST:
            return -1
        at += length
        count -= 1
    return at if at <= size else -1


@micropython.viper
def spell(names: ptr8, at: int, size: int, count: int, tokens: ptr8, room: int, index: ptr16, out: ptr8) -> int:
    """Skip `count` symbols from offset `at` and spell the next into out: its length, or -1 for invalid tables."""
    while True:
        if at + 2 > size:
            return -1
        length = names[at]
        at += 1
        if length & 0x80:
            length = (length & 0x7F) | (names[at] << 7)
            at += 1
        if count == 0:
            break
        at += length
        count -= 1
    end = at + length
    if end > size:
        return -1
    put = 0
    while at < end:
        token = index[names[at]]
        at += 1
        while token < room:
            character = tokens[token]
            if character == 0:
                break
            if put == LONGEST:
                return -1
            out[put] = character
            put += 1
            token += 1
    return put


@micropython.viper
def next_containing(
    place: ptr32, names: ptr8, size: int, tokens: ptr8, room: int, index: ptr16, out: ptr8, needle: ptr8
) -> int:
    """The next symbol whose name contains needle[1:1 + needle[0]], spelled into out; its length, or 0 for none.

    place: [offset, symbols left]; both are updated.
    """
    at = int(place[0])
    left = int(place[1])
    wanted = int(needle[0])
    found = 0
    look = cpu.look
    while left > 0 and found == 0:
        if left & (_LOOK_SPELLED - 1) == 0:
            look()
        if at + 2 > size:
            left = 0
            break
        length = names[at]
        at += 1
        if length & 0x80:
            length = (length & 0x7F) | (names[at] << 7)
            at += 1
        end = at + length
        if end > size or length > LONGEST:
            left = 0
            break
        put = 0
        same = 0
        if wanted == 0:
            found = 1
        while at < end:
            token = index[names[at]]
            at += 1
            while token < room and put < LONGEST:
                character = tokens[token]
                if character == 0:
                    break
                out[put] = character
                token += 1
                put += 1
                if found == 0 and put > 1:  # behind the type
                    start = put - 1
                    same = 0
                    while same < wanted and start - same > 0 and out[start - same] == needle[wanted - same]:
                        same += 1
                    if same == wanted:
                        found = 1
        left -= 1
        if found:
            found = put
    place[0] = at
    place[1] = left
    return found


@micropython.viper
def next_called(
    place: ptr32, names: ptr8, size: int, tokens: ptr8, room: int, index: ptr16, key: ptr8, wanted: int
) -> int:
    """Whether one of the next symbols is called key[:wanted]. place: as of next_containing().

    A name is spelled only as far as it agrees. For kernels without `seqs`.
    """
    at = int(place[0])
    left = int(place[1])
    found = 0
    look = cpu.look
    while left > 0 and found == 0:
        if left & (_LOOK - 1) == 0:
            look()
        if at + 2 > size:
            left = 0
            break
        length = names[at]
        at += 1
        if length & 0x80:
            length = (length & 0x7F) | (names[at] << 7)
            at += 1
        end = at + length
        if end > size or length > LONGEST:
            left = 0
            break
        same = -1  # the type comes first
        while at < end:
            token = index[names[at]]
            at += 1
            while token < room:
                character = tokens[token]
                if character == 0:
                    break
                token += 1
                if same >= 0 and (same >= wanted or character != key[same]):
                    same = -2
                    break
                same += 1
            if same < -1:
                break
        if same == wanted:
            found = 1
        at = end
        left -= 1
    place[0] = at
    place[1] = left
    return found


@micropython.viper
def lower_bound(
    seqs: ptr8,
    count: int,
    names: ptr8,
    size: int,
    markers: ptr32,
    tokens: ptr8,
    room: int,
    index: ptr16,
    key: ptr8,
    wanted: int,
) -> int:
    """The place in seqs of the first name that is not before key[:wanted]; -1 for invalid tables.

    One function, which spells only as far as names agree: spell() for each of 18 names would double its cost.
    """
    low = 0
    high = count
    look = cpu.look
    while low < high:
        look()
        middle = (low + high) >> 1
        number = (seqs[3 * middle] << 16) | (seqs[3 * middle + 1] << 8) | seqs[3 * middle + 2]
        if number >= count:
            return -1
        at = int(markers[number >> 8])
        skip = number & 255
        start = 0
        while skip >= 0:
            if at + 2 > size:
                return -1
            length = names[at]
            at += 1
            if length & 0x80:
                length = (length & 0x7F) | (names[at] << 7)
                at += 1
            start = at
            at += length
            skip -= 1
        if at > size:
            return -1
        same = -1  # the type comes first
        order = 0  # of the name, less the key's
        while start < at and order == 0:
            token = index[names[start]]
            start += 1
            while token < room and order == 0:
                character = tokens[token]
                token += 1
                if character == 0:
                    token = room
                elif same < 0:
                    same = 0
                elif same == wanted:
                    order = 1
                else:
                    order = character - key[same]
                    same += 1
        if order == 0 and same < wanted:
            order = -1
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return low
