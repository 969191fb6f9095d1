"""System calls of a guest's Linux: names and arguments, as the kernel itself has them for its tracing.

syscalls_metadata, an array of pointers by number, has each call's name, and the names and types of its arguments
(CONFIG_FTRACE_SYSCALLS). Without it the name is that of the function in sys_call_table, and the arguments have none.
Source: Linux, include/trace/syscall.h.
"""

import struct

from micropython import const

from vmm.insight.objects import text
from vmm.vtx.x86 import IA32_LSTAR, PAGE

_MOST = const(1024)  # numbers
_ARGUMENTS = const(6)
_TEXT = const(256)  # bytes of a name
_STRING = const(4096)
_SIGNED = ("int", "long", "pid_t", "key_serial_t", "ssize_t", "timer_t", "clockid_t", "const clockid_t")
_UNSIGNED = ("unsigned int", "unsigned", "u32", "uid_t", "gid_t", "umode_t")
# Of struct pt_regs, as words; its order is part of the kernel's ABI.
_ORIG_AX = const(15)
_CS = const(17)
_IN_REGISTERS = (14, 13, 12, 7, 9, 8)  # rdi, rsi, rdx, r10, r8, r9
_CODE32 = const(0x23)
_AX = const(80)  # bytes
_REGISTERS = const(168)
_PREFIX = "sys_"
# The names that the C library has for calls that the kernel calls otherwise.
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
    """A system call with its arguments. number; name, or None; values: of six registers; arguments: [(name, value)].

    space: of the program, to read what pointers lead to; None: they are shown as numbers. result: the word that the
    program gets, or None while the call is not over; error: its name ("ENOENT"), or None.
    """

    def __init__(self, kernel, number, values, old=False, space=None, result=None):
        """old: a 32-bit program's, by INT 0x80 or SYSENTER."""
        self.number = number
        self.values = values
        self.result = result
        self.old = old
        self._kernel = kernel
        self.space = space
        found = None if old else signature(kernel, number)
        self.name = found.name if found else _of_table(kernel, number, "ia32_sys_call_table") if old else None
        self._signature = found.arguments if found is not None else None

    @property
    def arguments(self):
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
        return tuple([signed(type, value) for (type, _), value in zip(self._signature, self.values)])

    @property
    def error(self):
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
        called = "%s(%s)" % (self.name or "syscall_%d" % self.number, ", ".join(parts))
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
    if vcpu.rip in _returns(kernel):
        gva = vcpu.rsp
        result = signed("long", kernel.space.number(gva + _AX, 8))
    else:
        gva = registers(kernel, vcpu)
        result = None
    return of_registers(kernel, gva, vcpu.space(), result)


def _returns(kernel):
    """Where the kernel has a call's result."""
    if "returns" not in kernel.calls:
        from vmm.insight.linux import returns

        kernel.calls["returns"] = returns.places(kernel)
    return kernel.calls["returns"]


def registers(kernel, vcpu):
    """gva of the struct pt_regs that the current task's way into the kernel has saved: the end of its stack."""
    number = kernel.processors.number_of(vcpu)
    if kernel.symbols.get("pcpu_hot") is not None:  # Linux 6.2 to 6.14
        top = kernel.per_cpu("pcpu_hot", number).top_of_stack
    else:
        top = kernel.per_cpu("cpu_current_top_of_stack", number, "unsigned long")
    return top - _REGISTERS


def of_registers(kernel, gva, space, result=None):
    """The Call of a struct pt_regs. ValueError: it is of no system call."""
    words = struct.unpack("<21Q", kernel.space.read(gva, _REGISTERS))
    number = words[_ORIG_AX]
    if number >> 63:
        raise ValueError("the way into the kernel was no system call")
    values = tuple([words[at] for at in _IN_REGISTERS])
    return Call(kernel, number & 0xFFFFFFFF, values, words[_CS] == _CODE32, space, result)


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


def signed(type, value):
    """An argument as the number that it is by its type in C."""
    if type in _SIGNED:
        bits = 64 if type in ("long", "ssize_t") else 32
    elif type in _UNSIGNED:
        return value & 0xFFFFFFFF
    else:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def number(kernel, name):
    """The number of a call by its name, the kernel's or the C library's. ValueError where there is none."""
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
    near = [_short(found) for found, _ in kernel.symbols.search("__x64_sys_%s*" % name[:4], 5)]
    raise ValueError("Linux has no system call %s%s" % (name, "; there are " + ", ".join(near) if near else ""))


def signature(kernel, number):
    """The Signature of a system call of 64-bit programs, or None where there is none of that number."""
    known = kernel.calls
    if number not in known:
        if len(known) > _MOST:
            known.clear()
        known[number] = _signature(kernel, number) if number < _MOST else None
    return known[number]


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
