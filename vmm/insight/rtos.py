"""The real-time kernel of guests/rtos from outside: its tasks, what they wait for, their stacks (kernel.h, sched.c)."""

from micropython import const

from vmm.insight.layout import Layout
from vmm.insight.system import System, Task

_TASKS = const(24)
_STACK = const(8192)
_STATES = ("free", "ready", "delay", "pend")
_SUSPENDED = ("free", "suspend", "delay+s", "pend+s")
_SAVED = const(16)  # bytes that switch_stack() pushes below the return address

TASK = Layout(
    """
    ptr next, previous, sp;
    u32 state;
    u8 suspended, priority, base_priority, timed_out;
    char name[12];
    ptr wait_list, waits_for, message;
    ptr mutexes[2];
    ptr timeout[2]; u32 expiry, armed; ptr expire, argument;
    u64 used;
    u32 switches;
    ptr stack;
    u8 fpu[512] @ 0x60;
    u8 fpu_used;
    u8 rest[15];
    """,
    word=4,
)


class Rtos(System):
    """vm.system of a guest that runs guests/rtos: tasks by their control blocks, TASK."""

    word = 4
    columns = ("PRI", "BASE", "STACK", "SWITCHES", "WAITS")

    def _records(self):
        for record in self.array(TASK, "tasks", _TASKS):
            if record.state:
                yield record
        yield self.struct(TASK, "idle")

    def tasks(self):
        running = self.pointer("current")
        for task in self._records():
            names = _SUSPENDED if task.suspended else _STATES
            state = names[task.state] if task.state < len(names) else "state %d" % task.state
            if task.gva_ == running:
                state = "running"
            elif not task.state:
                state = "idle"
            more = (task.priority, task.base_priority, self._used(task), task.switches, self._waits(task))
            yield Task(task.gva_, task.name, state, more)

    def _used(self, task):
        """Bytes of the stack that were ever used."""
        data = self.space.read(task.stack, _STACK)
        return _STACK - (len(data) - len(data.lstrip(b"\xee"))) // 4 * 4

    def _waits(self, task):
        if task.waits_for:
            return self._place("mutex", task.waits_for)
        if task.wait_list:
            return self._place("", task.wait_list)
        return "%d ticks" % ((task.expiry - self.number("ticks")) & 0xFFFFFFFF) if task.state == 2 else ""

    def _place(self, kind, gva):
        return (kind + " " + (self.vm.symbols.at(gva) or "%#x" % gva)).strip()

    def current(self, vcpu):
        return self.pointer("current")

    def saved(self, task):
        sp = self.struct(TASK, task.key).sp
        return self.number(sp + _SAVED), sp + _SAVED + 4
