"""The interrupt lines of a pair of 8259As: requests, the priority resolver, the INTA cycles (Intel 8259A data sheet).

Functions on the state that i8259.py keeps in one buffer. Registers and commands are in i8259.py.
"""

import micropython
from micropython import const

CASCADE = const(0x04)  # the master's input 2
NONE = const(8)  # "no input" among levels 0..7

# State of the master from 0 on, of the slave from SLAVE on.
IRR = const(0)
IMR = const(1)
ISR = const(2)
ELCR = const(3)
INPUTS = const(4)  # levels of the lines
BASE = const(5)  # ICW2
FLAGS = const(6)  # below
EXPECT = const(7)  # the ICW that comes next: 2, 3, 4; 0 when initialized
LOWEST = const(8)  # the level that has the lowest priority
INT = const(9)  # level of the output
ICW3 = const(10)
MASKED_EDGE = const(11)  # of the master: bit of a masked input for which edge() has returned 2
SLAVE = const(16)
LSB = const(32)  # 256 bytes: the lowest set bit of the index

F_AEOI = const(0x01)
F_SFNM = const(0x02)
F_ROTATE = const(0x04)  # rotate in automatic EOI mode
F_SMM = const(0x08)
F_POLL = const(0x10)
F_READ_ISR = const(0x20)
F_SINGLE = const(0x40)
F_IC4 = const(0x80)


@micropython.viper
def find_lowest(s: ptr8):
    """Fill in the table of lowest set bits."""
    i = 1
    while i < 256:
        bit = 0
        while (i >> bit) & 1 == 0:
            bit += 1
        s[LSB + i] = bit
        i += 1
    s[LSB] = NONE


@micropython.viper
def mask(s: ptr8, now: int) -> int:
    """I8259.reader()."""
    if s[FLAGS] & F_POLL:
        return -1
    return s[IMR]


# The priority resolver.
@micropython.viper
def request(state: int, c: int) -> int:
    """The level of the highest request of chip `c` that is unmasked and above all in service, or NONE."""
    s = ptr8(state)
    pending = s[c + IRR] & (s[c + IMR] ^ 0xFF)
    if pending == 0:
        return NONE
    service = s[c + ISR]
    if s[c + FLAGS] & F_SMM:
        service &= s[c + IMR] ^ 0xFF
    first = (s[c + LOWEST] + 1) & 7
    if first:
        pending = ((pending >> first) | (pending << (8 - first))) & 0xFF
        service = ((service >> first) | (service << (8 - first))) & 0xFF
    rank = s[LSB + pending]
    limit = s[LSB + service]
    level = (rank + first) & 7
    if rank > limit:
        return NONE
    if rank == limit:
        # Special fully nested mode: the slave in service may request again.
        if c or level != 2 or s[FLAGS] & F_SFNM == 0:
            return NONE
    return level


@micropython.viper
def take(state: int, c: int, level: int):
    """Acknowledge `level` of chip `c`."""
    s = ptr8(state)
    bit = 1 << level
    if s[c + ELCR] & bit == 0:
        s[c + IRR] = s[c + IRR] & (bit ^ 0xFF)
    if s[c + FLAGS] & F_AEOI == 0:
        s[c + ISR] = s[c + ISR] | bit
    elif s[c + FLAGS] & F_ROTATE:
        s[c + LOWEST] = level


@micropython.viper
def update(state: int, chips):
    """Drive the slave's output into the master and the master's into `intr`."""
    s = ptr8(state)
    if s[MASKED_EDGE]:
        if s[IRR] & (s[IMR] ^ 0xFF) & s[MASKED_EDGE] or s[IRR] & s[MASKED_EDGE] == 0:
            s[MASKED_EDGE] = 0
            chips.unmasked()
    level = 0
    if s[SLAVE + IRR] & (s[SLAVE + IMR] ^ 0xFF):
        if int(request(state, SLAVE)) != NONE:
            level = 1
    if level and s[SLAVE + INT] == 0:
        s[IRR] = s[IRR] | CASCADE
    s[SLAVE + INT] = level
    level = 0
    if s[IRR] & (s[IMR] ^ 0xFF):
        if int(request(state, 0)) != NONE:
            level = 1
    if level != s[INT]:
        s[INT] = level
        chips.intr(level)


@micropython.viper
def set_irq(chip: int, bit: int, update, level: int) -> int:
    """I8259.set_irq(). chip: address of the chip's state."""
    s = ptr8(chip)
    inputs = s[INPUTS]
    irr = s[IRR]
    if level == 0:
        s[INPUTS] = inputs & (bit ^ 0xFF)
        if s[ELCR] & irr & bit:
            s[IRR] = irr & (bit ^ 0xFF)
            update()
        return 1
    if inputs & bit:
        return 1
    s[INPUTS] = inputs | bit
    if irr & bit:
        if s[IMR] & bit:
            return 1
        return 0
    s[IRR] = irr | bit
    if s[IMR] & bit:
        return 1
    update()
    return 1


@micropython.viper
def edge(state: int, bit: int, update) -> int:
    """I8259.edge()."""
    s = ptr8(state)
    irr = s[IRR]
    if s[INPUTS] & bit == 0 or s[ELCR] & bit:
        return -1
    if s[IMR] & bit:
        s[IRR] = irr | bit
        s[MASKED_EDGE] = bit
        return 2
    if irr & bit:
        return 0
    s[IRR] = irr | bit
    update()
    return 1


@micropython.viper
def acknowledge(state: int, update) -> int:
    """I8259.ack()."""
    s = ptr8(state)
    level = int(request(state, 0))
    if level == NONE:
        return s[BASE] | 7
    take(state, 0, level)
    vector = s[BASE] | level
    if level == 2 and s[FLAGS] & F_SINGLE == 0:
        level = int(request(state, SLAVE))
        vector = s[SLAVE + BASE] | 7
        if level != NONE:
            vector = s[SLAVE + BASE] | level
            take(state, SLAVE, level)
        s[SLAVE + INT] = 0  # INTA ends the request; one that is still pending is another edge
    update()
    return vector
