"""System calls of a guest's Linux: names and arguments, from the kernel's own tables for tracing.

syscalls_metadata, an array of pointers by number, has each call's name, and the names and types of its arguments
(CONFIG_FTRACE_SYSCALLS). Without it the name is that of the function in sys_call_table, and the arguments have none.
Source: Linux, include/trace/syscall.h.
"""

import struct

from micropython import const

from vmm.insight.linux.callring import REGISTERS
from vmm.insight.linux.returns import AX, CALL_BYTES, CODE32, CODE64, EXECVE
from vmm.insight.objects import text
from vmm.vtx.x86 import IA32_LSTAR, MASK32, PAGE

_MOST = const(1024)  # numbers
_ARGUMENTS = const(6)
_NEAR = const(100)  # names that may be meant
_TEXT = const(256)  # bytes of a name
_STRING = const(4096)
_SIGNED = ("int", "long", "pid_t", "key_serial_t", "ssize_t", "timer_t", "clockid_t", "const clockid_t")
_UNSIGNED = ("unsigned int", "unsigned", "u32", "uid_t", "gid_t", "umode_t")
# Of struct pt_regs, as words; its order is part of the kernel's ABI.
_ORIG_AX = const(15)
_CS = const(17)
_IN_REGISTERS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9
_IN_REGISTERS_32 = (5, 11, 12, 13, 14, 4)  # ebx, ecx, edx, esi, edi, ebp
_PREFIX = "sys_"
# The C library's names of calls that have another name in the kernel.
USUAL = {
    "newstat": "stat", "newlstat": "lstat", "newfstat": "fstat", "newuname": "uname", "sendfile64": "sendfile",
    "umount": "umount2",
}  # fmt: skip


class Signature:
    """name: without "sys_"; arguments: [(type, name), ...], None: not known."""

    def __init__(self, name, arguments):
        self.name = name
        self.arguments = arguments


class Call:
    """A system call with its arguments. number; name, or None; values: of six registers.

    space: of the program, to read the targets of pointers; None: pointers are shown as numbers. result: the word that
    the program gets, or None while the call is not over.
    """

    def __init__(self, kernel, number, values, old=False, space=None, result=None):
        """old: as 32-bit programs call, by INT 0x80 or SYSENTER."""
        self.number = number
        self.values = values
        self.result = result
        self.old = old
        self._kernel = kernel
        self.space = space
        found = signature(kernel, number, old)
        self.name = found.name if found else None
        self._signature = found.arguments if found is not None else None

    @property
    def arguments(self):
        """[(name, text), ...]; names are "" where the kernel does not have them."""
        if self._signature is None:
            return [("", hex(value)) for value in self.values]
        from vmm.insight.linux import values

        return [
            (name, values.show(self, type, name, value))
            for (type, name), value in zip(self._signature, self.values)
        ]  # fmt: skip

    @property
    def args(self):
        """The arguments as numbers, as many as the call has; signed where they are so in C."""
        if self._signature is None:
            return tuple(self.values)
        return tuple([signed(type, value, self.old) for (type, _), value in zip(self._signature, self.values)])

    @property
    def error(self):
        """The name of the error that the call returns, such as "ENOENT"; None: it returns none, or is not over."""
        from vmm.insight.linux import values

        return values.error(self.result)

    def string(self, index, limit=_STRING):
        """The string that an argument points to, or bytes where it is no text. ValueError: it cannot be read."""
        return text(string(self.space, self.values[index], limit))

    def read(self, index, size):
        """`size` bytes that an argument points to. ValueError: they cannot be read."""
        return self.space.read(self.values[index], size)

    def __repr__(self):
        parts = ["%s=%s" % pair if pair[0] else pair[1] for pair in self.arguments]
        unnamed = "syscall_%d" if self.number < _MOST else "syscall_%#x"
        called = "%s(%s)" % (self.name or unnamed % self.number, ", ".join(parts))
        if self.result is None:
            return called
        from vmm.insight.linux import values

        return "%s = %s" % (called, values.result(self.name, self.result))


def of(vcpu):
    """The Call that a vCPU is in: of SYSCALL's entry point, or by what the kernel has saved of the program's registers.

    ValueError: it is in none.
    """
    kernel = vcpu.vm.kernel
    if vcpu.rip == vcpu.vm.msrs.read(vcpu, IA32_LSTAR):
        values = vcpu.rdi, vcpu.rsi, vcpu.rdx, vcpu.r10, vcpu.r8, vcpu.r9
        return Call(kernel, vcpu.rax & 0xFFFFFFFF, values, False, vcpu.space())
    if vcpu.cpl:
        raise ValueError("vCPU %d runs a program, and is in no system call" % vcpu.number)
    returns, ways = _places(kernel)
    if vcpu.rip in ways:
        from vmm.insight.linux import compat

        return _of_way(kernel, vcpu, compat.saved_number(kernel, vcpu.rsp), vcpu.rip == ways[1])
    if vcpu.rip in returns or vcpu.rip - CALL_BYTES in ways:
        gva = vcpu.rsp
        result = signed("long", kernel.space.number(gva + AX, 8))
    else:
        gva = registers(kernel, vcpu)
        result = None
    return of_registers(kernel, gva, vcpu.space(), result, vcpu.rip - CALL_BYTES in ways)


def _of_way(kernel, vcpu, number, sysenter):
    """The Call at one of compat.ways(). With SYSENTER, EBP is the stack pointer, and points to EBP's own value."""
    words = struct.unpack("<21Q", kernel.space.read(vcpu.rsp, REGISTERS))
    values = [words[at] & MASK32 for at in _IN_REGISTERS_32]
    space = vcpu.space()
    if sysenter:
        try:
            values[-1] = space.number(values[-1], 4)
        except ValueError:
            pass  # the call will fail with EFAULT
    return Call(kernel, number, tuple(values), True, space)


def _places(kernel):
    """(where the kernel has a call's result, the ways of 32-bit programs or (None, None))."""
    if "places" not in kernel.calls:
        from vmm.insight.linux import compat, returns

        try:
            ways = compat.ways(kernel)
        except ValueError:
            ways = None, None
        kernel.calls["places"] = returns.places(kernel), ways
    return kernel.calls["places"]


def registers(kernel, vcpu):
    """gva of the struct pt_regs that the current task's entry to the kernel has saved, at the end of its stack."""
    number = kernel.processors.number_of(vcpu)
    if kernel.symbols.get("pcpu_hot") is not None:  # Linux 6.2 to 6.14
        top = kernel.per_cpu("pcpu_hot", number).top_of_stack
    else:
        top = kernel.per_cpu("cpu_current_top_of_stack", number, "unsigned long")
    return top - REGISTERS


def of_registers(kernel, gva, space, result=None, old=False):
    """The Call of a struct pt_regs. old: it is known to be of a 32-bit program. ValueError: it is no system call's."""
    words = struct.unpack("<21Q", kernel.space.read(gva, REGISTERS))
    number = words[_ORIG_AX]
    if number >> 63 and result is None:  # with a result it is a call of an invalid number
        raise ValueError("the way into the kernel was no system call")
    code = words[_CS] & 0xFFFF
    old = code == CODE32 or old and not (number == EXECVE and code == CODE64)  # execve of a 64-bit program
    values = [words[at] & MASK32 for at in _IN_REGISTERS_32] if old else [words[at] for at in _IN_REGISTERS]
    if result is not None and not old:
        from vmm.insight.linux import signals

        found = signals.undone(words, space)
        if found is not None:
            values, result = found[0] or values, found[1]
    return Call(kernel, number & MASK32, tuple(values), old, space, result)


def string(space, gva, limit):
    """The bytes up to a NUL at gva, at most `limit` of them."""
    parts = []
    while limit > 0:
        size = min(limit, PAGE - gva % PAGE)
        data = space.read(gva, size)
        end = data.find(b"\0")
        if end >= 0:
            parts.append(data[:end])
            break
        parts.append(data)
        gva += size
        limit -= size
    return b"".join(parts)


def signed(type, value, old=False):
    """An argument as a number by its type in C: signed, or of 32 bits. old: of a 32-bit program."""
    if type in _SIGNED:
        bits = 64 if type in ("long", "ssize_t") and not old else 32
    elif type in _UNSIGNED:
        return value & 0xFFFFFFFF
    else:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def number(kernel, name, old=False):
    """The number of a call by its name, the kernel's or the C library's. ValueError where there is none.

    old: among those of 32-bit programs.
    """
    return (_number_32 if old else _number_64)(kernel, name)


def _number_64(kernel, name):
    table = kernel.symbol("sys_call_table")
    _, start, end = kernel.symbols.around(table)
    code = kernel.space.read(table, min((end or start) - start, 8 * _MOST))
    for own in [own for own in USUAL if USUAL[own] == name] + [name]:
        for gva in kernel.symbols.all("__x64_sys_" + own):
            word = gva.to_bytes(8, "little")
            at = code.find(word)
            while at >= 0 and at & 7:
                at = code.find(word, at + 1)
            if at >= 0:
                return at >> 3
    from vmm.insight.symbols import nearest

    near = nearest(name, names(kernel, name[:2], _NEAR))
    raise ValueError("Linux has no system call %s%s" % (name, "; there are " + ", ".join(near) if near else ""))


def names(kernel, beginning, most):
    """Names of system calls that begin so, at most `most` of them."""
    return [_short(found) for found, _ in kernel.symbols.search("__x64_sys_%s*" % beginning, most)]


def numbers_32(kernel, names):
    """The sorted numbers of 32-bit programs' calls of these names; unknown names are left out."""
    from vmm.insight.linux import compat

    found = compat.numbers(kernel, [own for own in USUAL if USUAL[own] in names] + list(names)) if names else {}
    return sorted([number for several in found.values() for number in several])


def _number_32(kernel, name):
    found = numbers_32(kernel, [name])
    if found:
        return found[0]
    from vmm.insight.linux import compat

    functions = compat.functions(kernel)
    names = set([compat.name(functions[number])[0] for number in functions])
    near = sorted([own for own in names if own.startswith(name[:4])])[:5]
    raise ValueError("Linux's 32-bit programs have no system call %s%s" % (
        name, "; there are " + ", ".join(near) if near else ""
    ))  # fmt: skip


def signature(kernel, number, old=False):
    """The Signature of a system call, or None where there is none of that number. old: of 32-bit programs."""
    known = kernel.calls
    key = (number,) if old else number
    if key not in known:
        if len(known) > 2 * _MOST:
            known.clear()
        known[key] = (_signature_32 if old else _signature)(kernel, number) if number < _MOST else None
    return known[key]


def _signature_32(kernel, number):
    """The Signature by the call's function. Its arguments are the 64-bit call's where both have the same function."""
    from vmm.insight.linux import compat

    try:
        function = compat.function(kernel, number)
    except ValueError:
        return None
    if function is None:
        return None
    own, same = compat.name(function)
    try:
        found = signature(kernel, _number_64(kernel, own)) if same else None
    except ValueError:
        found = None
    return Signature(USUAL.get(own, own), found.arguments if found is not None else None)


def _signature(kernel, number):
    table = kernel.find("syscalls_metadata")
    if table is not None and kernel.types.has("struct syscall_metadata"):
        pointer = kernel.object("struct syscall_metadata *", kernel.space.number(table, 8) + 8 * number)
        if pointer and pointer.syscall_nr == number:
            count = pointer.nb_args
            if not 0 <= count <= _ARGUMENTS:
                raise ValueError("the kernel says that system call %d has %d arguments" % (number, count))
            types, names = pointer.types, pointer.args
            arguments = [(types[i].string_(_TEXT), names[i].string_(_TEXT)) for i in range(count)]
            return Signature(_short(pointer.name.string_(_TEXT)), arguments)
    name = _of_table(kernel, number, "sys_call_table")
    return Signature(name, None) if name else None


def _short(name):
    at = name.find(_PREFIX)
    name = name[at + len(_PREFIX) :] if at >= 0 else name
    return USUAL.get(name, name)


def _of_table(kernel, number, table):
    """The name by the function in a table of the kernel."""
    at = kernel.find(table)
    found = kernel.symbols.around(at) if at is not None else None
    if found is None or not found[2] or at + 8 * number >= found[2]:
        return None
    name = kernel.symbols.at(kernel.space.number(at + 8 * number, 8))
    return _short(name) if name and "ni_syscall" not in name and "+" not in name else None
