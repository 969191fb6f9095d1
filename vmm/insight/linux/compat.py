"""System calls of 32-bit programs in a 64-bit Linux: their numbers, and where the kernel has them.

The numbers come from the kernel: from ia32_sys_call_table, or from 6.9 on (6.1.86 and 6.6.27, too) from the code of
ia32_sys_call(), a tree of comparisons with the number whose leaves are jumps to the functions. All calls go through one
CALL for each entry, INT 80H and SYSENTER; before it and behind it RSP points to the saved registers. Until that CALL
the number is in orig_ax, or, where INT 80H is entered like an exception, in ax, with -1 in orig_ax. A kernel without
CONFIG_IA32_EMULATION has none. Source: Linux, arch/x86/entry/entry_64_compat.S, arch/x86/entry/syscall_32.c.
"""

from vmm.emulation import length
from vmm.insight.calls import MOST
from vmm.insight.linux.returns import AX, CALL, branches
from vmm.insight.linux.stack import ORIG_AX
from vmm.vtx.x86 import INSTRUCTION_BYTES, MASK32

INT80 = ("asm_int80_emulation", "entry_INT80_compat")
SYSENTER = ("entry_SYSENTER_compat_after_hwframe", "entry_SYSENTER_compat")
_INT80_TARGETS = "do_int80_emulation", "int80_emulation", "do_int80_syscall_32"
_SYSENTER_TARGETS = ("do_SYSENTER_32",)
_TREE = 0x4000  # bytes of code that are searched, at most
_STEPS = 8192  # instructions
_ALL = "functions of 32-bit programs"  # key of their names in vmm.insight.kernel.Kernel.calls
_ADDRESSES = "addresses of functions of 32-bit programs"
_PREFIXES = (
    "__ia32_sys_", "__ia32_compat_sys_", "__ia32_sys_ia32_", "__ia32_compat_sys_ia32_", "__do_sys_", "__x64_sys_",
    "compat_sys_", "sys_",
)  # fmt: skip

_JCC8 = 0x70
_JCC32 = 0x80
_JMP8, _JMP32 = 0xEB, 0xE9
_RET = 0xC3


def ways(kernel):
    """gvas of the CALLs: (of INT 80H, of SYSENTER); None for a way that is not found. ValueError where neither is."""
    found = tuple(
        [
            (branches(kernel, names, CALL, targets) or (None,))[0]
            for names, targets in ((INT80, _INT80_TARGETS), (SYSENTER, _SYSENTER_TARGETS))
        ]
    )
    if found == (None, None):
        raise ValueError("the guest's kernel has no system calls of 32-bit programs, or they are not found")
    return found


def functions(kernel):
    """{number: name of the kernel's function} of 32-bit programs' calls. ValueError where the kernel has none.

    Naming them all takes 70 million ticks; numbers() finds a few faster.
    """
    known = kernel.calls.get(_ALL)
    if known is None:
        names = {}
        known = {}
        for number, gva in _addresses(kernel).items():
            if gva not in names:
                names[gva] = _name(kernel, gva)
            if names[gva]:
                known[number] = names[gva]
        if not known:
            raise _unknown()
        kernel.calls[_ALL] = known
    return known


def function(kernel, number):
    """The name of the kernel's function for one number, or None; much faster than functions()."""
    known = kernel.calls.get(_ADDRESSES)
    if known is None:
        known = _from_table(kernel, number, number) or _from_code(kernel, number, number) or {}
    return _name(kernel, known[number]) if number in known else None


def numbers(kernel, names):
    """{name: the numbers of its calls, ascending}; unknown names are left out. ValueError where the kernel has no calls
    of 32-bit programs."""
    wanted = {}
    for own in names:
        for prefix in _PREFIXES:
            for gva in kernel.symbols.own(prefix + own):
                wanted[gva] = own
    found = {}
    known = _addresses(kernel)
    for number in range(MOST):
        own = wanted.get(known.get(number))
        if own is not None:
            found.setdefault(own, []).append(number)
    return found


def _addresses(kernel):
    """{number: gva of its function}, also of calls that are not implemented."""
    known = kernel.calls.get(_ADDRESSES)
    if known is None:
        known = _from_table(kernel) or _from_code(kernel)
        if not known:
            raise _unknown()
        kernel.calls[_ADDRESSES] = known
    return known


def _unknown():
    return ValueError("the guest's kernel does not tell its system calls of 32-bit programs")


def _name(kernel, gva):
    """The name of a function, or None for that of calls that are not implemented."""
    name = kernel.symbols.at(gva)
    return None if name is None or "+" in name or "ni_syscall" in name else name


def _from_table(kernel, low=0, high=MOST - 1):
    table = kernel.find("ia32_sys_call_table")
    if table is None:
        return None
    _, start, end = kernel.symbols.around(table)
    found = {}
    for number in range(low, min(((end or start) - start) // 8, high + 1)):
        found[number] = kernel.space.number(table + 8 * number, 8)
    return found


def _from_code(kernel, low=0, high=MOST - 1):
    """_addresses() from the comparisons: ranges of the number are followed down the tree, each branch once."""
    start = kernel.find("ia32_sys_call")
    if start is None:
        return None
    _, _, end = kernel.symbols.around(start)
    most = min((end or start + _TREE) - start, _TREE)
    code = kernel.space.read(start, most) + bytes(INSTRUCTION_BYTES)
    found = {}
    todo = [(0, None, low, high)]  # (offset, what the number was compared with last, range of the number)
    steps = 0
    while todo and steps < _STEPS:
        at, compared, low, high = todo.pop()
        while low <= high and steps < _STEPS:
            if not 0 <= at < most:
                for number in range(low, high + 1):  # those that have one already keep it
                    found.setdefault(number, start + at)
                break
            steps += 1
            op = code[at]
            size = _size(code, at)
            if op in (0x81, 0x83) and code[at + 1] & 0xF8 == 0xF8:  # CMP r32, imm
                compared = int.from_bytes(code[at + 2 : at + size], "little")
            elif op == 0x85:  # TEST r32, r32: as CMP with 0
                compared = 0
            elif op in (_JMP8, _JMP32) or op == CALL and compared is not None:  # CALL: exit() does not return
                at += _displacement(code, at + 1, size - 1)
            elif op == _RET:
                break
            elif (op & 0xF0 == _JCC8 or op == 0x0F and code[at + 1] & 0xF0 == _JCC32) and compared is not None:
                opcode = 1 if op & 0xF0 == _JCC8 else 2
                there = at + size + _displacement(code, at + opcode, size - opcode)
                taken, other = _split(code[at + opcode - 1] & 15, compared, low, high)
                ways = [(at + size, compared) + other, (there, compared) + taken]
                if taken[1] - taken[0] > other[1] - other[0]:
                    ways.reverse()
                todo += ways  # the last goes first: a single number before the range that it may still lie in
                break
            at += size
    if steps >= _STEPS:
        raise ValueError("the guest's ia32_sys_call is no tree of comparisons")
    return found


def _size(code, at):
    """The length of an instruction; for the instructions of such a tree without the decoder, which is slower."""
    op, register = code[at], code[at + 1] >= 0xC0
    if op in (0x83, 0x85) and register:
        return 3 if op == 0x83 else 2
    if op == 0x81 and register:
        return 6
    if op in (CALL, _JMP32):
        return 5
    if op == _JMP8 or op & 0xF0 == _JCC8:
        return 2
    if op == 0x0F and code[at + 1] & 0xF0 == _JCC32:
        return 6
    return length.length(code[at : at + INSTRUCTION_BYTES], 64)


def _displacement(code, at, size):
    value = int.from_bytes(code[at : at + size], "little")
    return value - (1 << 8 * size) if value >> 8 * size - 1 else value


def _split(condition, value, low, high):
    """((low, high) where a jump on this condition is taken, the same where it is not) after CMP with value."""
    condition, negated = condition & 14, condition & 1
    if condition == 4:  # E
        taken, other = (max(low, value), min(high, value)), (low + (low == value), high - (high == value))
    elif condition in (2, 12):  # B, L
        taken, other = (low, min(high, value - 1)), (max(low, value), high)
    elif condition in (6, 14):  # BE, LE
        taken, other = (low, min(high, value)), (max(low, value + 1), high)
    else:  # S: no number is negative
        taken, other = (1, 0), (low, high)
    return (other, taken) if negated else (taken, other)


def name(function):
    """The call's name by that of its function: (name, whether it takes what the 64-bit call of that name takes)."""
    at = function.find("sys_")
    short = function[at + 4 :] if at >= 0 else function
    own = short.startswith("ia32_")
    return (short[5:] if own else short), not own


def saved_number(kernel, gva):
    """The number of a call by its saved registers, before the CALL of ways()."""
    number = kernel.space.number(gva + ORIG_AX, 8)
    return (kernel.space.number(gva + AX, 8) if number >> 63 else number) & MASK32
