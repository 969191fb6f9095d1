"""Arguments of a function that has just been entered, by the System V ABI.

64-bit code: RDI, RSI, RDX, RCX, R8, R9, then the stack behind the return address. Other code: the stack. Arguments are
unsigned numbers of the code's width. They are read on access; ValueError where that is not possible.
"""

_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_SHOWN = 6
_MOST = 64


class Args:
    """args[0] is the first one, args[:3] a list of three. vcpu: at the function's first instruction."""

    def __init__(self, vcpu):
        self._vcpu = vcpu
        self._bits = vcpu.bits

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(_MOST))]
        if not isinstance(index, int) or not 0 <= index < _MOST:
            raise IndexError("argument %r: from 0 to %d" % (index, _MOST - 1))
        if self._bits == 64:
            if index < len(_REGISTERS):
                return getattr(self._vcpu, _REGISTERS[index])
            index -= len(_REGISTERS)
        size = self._bits // 8
        return stack(self._vcpu, size * (index + 1), size)

    def __repr__(self):
        out = []
        for index in range(_SHOWN):
            try:
                out.append("%#x" % self[index])
            except ValueError:
                out.append("?")
        return "(%s, ...)" % ", ".join(out)


def stack(vcpu, offset, size):
    """The number of `size` bytes at an offset from the top of the stack. ValueError where it is not mapped."""
    gva = vcpu.rsp + offset
    if vcpu.bits != 64:
        gva = gva + vcpu.segment("ss")[1] & 0xFFFFFFFF
    return vcpu.space().number(gva, size)


def leave(vcpu):
    """Return from a function that has just been entered: set RIP and the stack pointer to the caller's."""
    size = vcpu.bits // 8
    vcpu.rip = stack(vcpu, 0, size)
    vcpu.rsp += size
