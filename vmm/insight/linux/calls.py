"""System calls of a guest's Linux: names and arguments, as the kernel itself has them for its tracing.

syscalls_metadata, an array of pointers by number, has each call's name, and the names and types of its arguments
(CONFIG_FTRACE_SYSCALLS). Without it the name is that of the function in sys_call_table, and the arguments have none.
Source: Linux, include/trace/syscall.h.
"""

from micropython import const

_MOST = const(1024)  # numbers
_ARGUMENTS = const(6)
_TEXT = const(256)  # bytes of a name
_SIGNED = ("int", "long", "pid_t", "key_serial_t", "ssize_t", "timer_t", "clockid_t")
_PREFIX = "sys_"


class Signature:
    """name: without "sys_"; arguments: [(type, name), ...], None: not known."""

    def __init__(self, name, arguments):
        self.name = name
        self.arguments = arguments


class Call:
    """A system call with its arguments. number; name, or None; values: of six registers; arguments: [(name, value)]."""

    def __init__(self, kernel, number, values, old=False):
        """old: a 32-bit program's, by INT 0x80 or SYSENTER."""
        self.number = number
        self.values = values
        found = None if old else signature(kernel, number)
        self.name = found.name if found else _of_table(kernel, number, "ia32_sys_call_table") if old else None
        if found is None or found.arguments is None:
            self.arguments = [("", hex(value)) for value in values]
        else:
            self.arguments = [
                (name, show(type, value)) for (type, name), value in zip(found.arguments, values)
            ]  # fmt: skip

    def __repr__(self):
        parts = ["%s=%s" % pair if pair[0] else pair[1] for pair in self.arguments]
        return "%s(%s)" % (self.name or "?", ", ".join(parts))


def show(type, value):
    """An argument as text by its type in C: a signed number, a pointer or flags in hexadecimal."""
    if type in _SIGNED:
        bits = 64 if type in ("long", "ssize_t") else 32
        value &= (1 << bits) - 1
        return str(value - (1 << bits) if value >> (bits - 1) else value)
    if type in ("size_t", "unsigned int", "uid_t", "gid_t"):
        return str(value & 0xFFFFFFFF if type != "size_t" else value)
    return hex(value)


def signature(kernel, number):
    """The Signature of a system call of 64-bit programs, or None where there is none of that number."""
    known = kernel.calls
    if number not in known:
        if len(known) > _MOST:
            known.clear()
        known[number] = _signature(kernel, number) if number < _MOST else None
    return known[number]


def _signature(kernel, number):
    table = kernel.symbols.get("syscalls_metadata")
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
    return name[at + len(_PREFIX) :] if at >= 0 else name


def _of_table(kernel, number, table):
    """The name by the function in a table of the kernel."""
    at = kernel.symbols.get(table)
    found = kernel.symbols.around(at) if at is not None else None
    if found is None or not found[2] or at + 8 * number >= found[2]:
        return None
    name = kernel.symbols.at(kernel.space.number(at + 8 * number, 8))
    return _short(name) if name and "ni_syscall" not in name and "+" not in name else None
