"""Integer results and status flags of the instructions that the emulator executes.

A flag that the SDM leaves undefined has the value that Intel's CPUs give it: logic
operations clear AF. Source: SDM Vol. 1, "EFLAGS Register"; Vol. 2, each instruction.
"""

from micropython import const

CF = const(1 << 0)
PF = const(1 << 2)
AF = const(1 << 4)
ZF = const(1 << 6)
SF = const(1 << 7)
DF = const(1 << 10)
OF = const(1 << 11)
STATUS = const(0x8D5)  # CF, PF, AF, ZF, SF, OF
_STATUS_BUT_CF = const(0x8D4)


class Alu:
    """Functions return the result and leave the status flags in `flags`.

    Operands are unsigned and at most `size` bytes wide.
    """

    def __init__(self):
        self.flags = 0

    def _result(self, result, size, flags):
        """Adds SF, ZF and PF of `result` to `flags`."""
        if result == 0:
            flags |= ZF
        if result >> (8 * size - 1):
            flags |= SF
        low = result & 0xFF
        low ^= low >> 4
        if not 0x6996 >> (low & 15) & 1:
            flags |= PF
        self.flags = flags
        return result

    def add(self, a, b, carry, size):
        """a + b + carry."""
        total = a + b + carry
        bits = 8 * size
        result = total & ((1 << bits) - 1)
        flags = (a ^ b ^ result) & AF
        if total >> bits:
            flags |= CF
        if ((a ^ result) & (b ^ result)) >> (bits - 1):
            flags |= OF
        return self._result(result, size, flags)

    def sub(self, a, b, borrow, size):
        """a - b - borrow."""
        bits = 8 * size
        result = (a - b - borrow) & ((1 << bits) - 1)
        flags = (a ^ b ^ result) & AF
        if a < b + borrow:
            flags |= CF
        if ((a ^ b) & (a ^ result)) >> (bits - 1):
            flags |= OF
        return self._result(result, size, flags)

    def logic(self, result, size):
        """The flags of AND, OR, XOR and TEST."""
        return self._result(result, size, 0)

    def step(self, a, delta, size, flags):
        """INC and DEC (delta 1 and -1): CF stays as in `flags`."""
        result = self.add(a, 1, 0, size) if delta > 0 else self.sub(a, 1, 0, size)
        self.flags = self.flags & _STATUS_BUT_CF | flags & CF
        return result


def condition(code, flags):
    """Whether condition code 0-15 of Jcc, SETcc and CMOVcc holds."""
    pair = code >> 1
    if pair == 0:
        holds = flags & OF
    elif pair == 1:
        holds = flags & CF
    elif pair == 2:
        holds = flags & ZF
    elif pair == 3:
        holds = flags & (CF | ZF)
    elif pair == 4:
        holds = flags & SF
    elif pair == 5:
        holds = flags & PF
    else:
        holds = bool(flags & SF) != bool(flags & OF)
        if pair == 7:
            holds = holds or flags & ZF
    return bool(holds) != bool(code & 1)
