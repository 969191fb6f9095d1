"""gdb's `monitor` commands: those that front ends know from QEMU, and this monitor's own."""

import builtins
import io
import sys

from vmm.debug.gdb import info as qemu
from vmm.debug.gdb import xp
from vmm.debug.gdb.memory import translate
from vmm.vtx.x86 import MASK64

_OUTPUT = 1 << 18  # characters of a command's output

HELP = """\
help                         this text
info registers|mem|tlb|pic|lapic|guests   of the chosen thread's CPU, in QEMU's form
gva2gpa ADDR                 the guest-physical address of a virtual one
xp /FMT ADDR                 guest-physical memory, as gdb's x; x /FMT ADDR: virtual
phys on|off                  whether gdb's addresses are guest-physical
tasks on|off                 whether the tasks of a Linux guest are threads
triple_fault on|off          whether a triple fault stops the guest (on), or its file says what follows
system_reset                 start the guest anew; it stands at its first instruction
python LINE                  a line at the monitor's prompt; what it prints comes back
"""


class _Capture:
    """print() into a string, bounded."""

    def __init__(self):
        self.out = io.StringIO()
        self._left = _OUTPUT

    def print(self, *args, sep=" ", end="\n", file=None):
        text = sep.join([str(arg) for arg in args]) + end
        if file not in (None, sys.stdout):
            file.write(text)
        elif self._left > 0:
            self.out.write(text[: self._left])
            self._left -= len(text)
            if self._left <= 0:
                self.out.write("\n... (more than %d characters)\n" % _OUTPUT)


def run(stub, line):
    """Carry out a command; returns its output, lines of text. For an unknown one: the list of commands."""
    word, _, rest = line.strip().partition(" ")
    rest = rest.strip()
    if not word:
        return HELP
    command = _COMMANDS.get(word.split("/")[0])
    if command is None:
        return "unknown command %s\n%s" % (word, HELP)
    try:
        return command(stub, word[len(word.split("/")[0]) :] + " " + rest if "/" in word else rest)
    except (ValueError, KeyError, RuntimeError) as error:
        return "%s\n" % error


def _help(_stub, _rest):
    return HELP


def _info(stub, rest):
    if rest == "guests":
        return "%s\n" % stub.monitor.vms
    return qemu.info(stub.chosen()[1], rest)


def _switch(words, rest):
    """True or False for on and off. ValueError."""
    if rest not in ("on", "off"):
        raise ValueError("%s on|off" % words)
    return rest == "on"


def _phys(stub, rest):
    if rest:
        stub.memory.phys = _switch("phys", rest)
    return "addresses are %s\n" % ("guest-physical" if stub.memory.phys else "virtual")


def _tasks(stub, rest):
    if rest:
        on = _switch("tasks", rest)
        if on:
            kernel = stub.chosen()[0].vm.kernel
            kernel.symbol("init_task")
        stub.threads.tasks = on
    return "threads are %s\n" % ("vCPUs and tasks" if stub.threads.tasks else "vCPUs")


def _triple_fault(stub, rest):
    guest = stub.chosen()[0]
    guest.catch = _switch("triple_fault", rest)
    return "a triple fault %s\n" % ("stops the guest" if guest.catch else "does what the guest's file says")


def _system_reset(stub, _rest):
    guest = stub.chosen()[0]
    guest.vm.start()
    stub.threads.forget()
    return "guest %s stands at its first instruction\n" % guest.vm.name


def address(stub, text):
    """A number, $REGISTER, or a symbol of the guest's. ValueError."""
    _, vcpu, _ = stub.chosen()
    if text.startswith("$"):
        value = getattr(vcpu, text[1:], None)
        if not isinstance(value, int):
            raise ValueError("no register %s" % text[1:])
        return value
    try:
        value = int(text, 0)
    except ValueError:
        return vcpu.vm.symbols[text]
    if not 0 <= value <= MASK64:
        raise ValueError("%s is no 64-bit address" % text)
    return value


def _gva2gpa(stub, rest):
    if not rest:
        raise ValueError("gva2gpa ADDR")
    gva = address(stub, rest)
    try:
        return "gpa: %#x\n" % translate(stub.chosen()[1], gva)
    except ValueError as error:
        return "Unmapped: %s\n" % error


def _xp(stub, rest):
    _, vcpu, _ = stub.chosen()
    form, place = xp.parse(rest)
    return xp.dump(vcpu.vm.memory.read, form, address(stub, place))


def _x(stub, rest):
    _, vcpu, task = stub.chosen()
    form, place = xp.parse(rest)
    space = task.space if task else None

    def read(gva, size):
        return stub.memory.read(vcpu, space, gva, size)

    return xp.dump(read, form, address(stub, place))


def _python(_stub, rest):
    """As a line at the prompt: an expression's value is shown, names are the prompt's."""
    import __main__

    names = __main__.__dict__
    capture = _Capture()
    before = builtins.print
    builtins.print = capture.print
    try:
        try:
            code = compile(rest, "<gdb>", "eval")
        except SyntaxError:
            exec(rest, names)
        else:
            value = eval(code, names)
            if value is not None:
                capture.print(repr(value))
    except Exception as error:
        sys.print_exception(error, capture.out)
    finally:
        builtins.print = before
    return capture.out.getvalue()


_COMMANDS = {
    "help": _help,
    "info": _info,
    "phys": _phys,
    "tasks": _tasks,
    "gva2gpa": _gva2gpa,
    "xp": _xp,
    "x": _x,
    "python": _python,
    "py": _python,
    "system_reset": _system_reset,
    "triple_fault": _triple_fault,
}
