"""Views of what a guest runs: vm.system, vm.tasks(). The base of a class for each system (docs/task-views.md).

Linux has vm.linux. A view of another system is a short class, derived from System: rtos.py is one. It reads guest
memory without effects, by symbols of the guest's ELF file and by layouts (layout.py). The guest's data is not trusted:
lists are bounded, and an address that is not mapped is a ValueError.
"""

from micropython import const

from vmm.insight.systems import SYSTEMS
from vmm.insight.table import Table
from vmm.memory import look

_MOST = const(4096)  # entries of a list, tasks
_TEXT = const(256)  # bytes of a text


class Task:
    """key: what identifies a task, such as the address of the control block; name, state: texts; more: a tuple
    for the system's own columns."""

    def __init__(self, key, name, state, more=()):
        self.key = key
        self.name = name
        self.state = state
        self.more = more


class System:
    """The view of one guest. A derived class has tasks(), saved() and, for what runs now, current().

    word: bytes of a pointer. columns: names of what Task.more has; formats: of each, "%s" where it is left out.
    """

    word = 8
    columns = ()
    formats = ()

    def __init__(self, vm):
        self.vm = vm

    # -- what a derived class has

    def tasks(self):
        """Yield the Task of each."""
        raise NotImplementedError("tasks()")

    def current(self, vcpu):
        """The key of the task that a vCPU runs, or None."""
        return None

    def saved(self, task):
        """(pc, sp) or (pc, sp, frame pointer) with which a task that does not run now goes on."""
        raise NotImplementedError("saved()")

    # -- for users

    def ps(self):
        """The tasks, a table. The guest stands still while they are read, whatever its priority."""
        return self._steadily(self._ps)

    def _steadily(self, function, *args):
        try:
            len(self.vm.symbols)  # loaded before the guest is stopped
        except ValueError:
            pass  # a view may do without
        return self.vm.steadily(function, *args)

    def _ps(self):
        rows = []
        for task in self.tasks():
            if len(rows) == _MOST:
                raise ValueError("guest %s has more than %d tasks: its list is broken" % (self.vm.name, _MOST))
            rows.append((task.name, task.state) + tuple(task.more))
        formats = ("%s", "%s") + (tuple(self.formats) or ("%s",) * len(self.columns))
        return Table(("NAME", "STATE") + tuple(self.columns), rows, formats)

    def task(self, which):
        """The Task of a name or a key. KeyError: there is none, or several have the name."""
        there = self._steadily(list, self.tasks())
        found = [task for task in there if which in (task.key, task.name)]
        if len(found) == 1:
            return found[0]
        if found:
            keys = ", ".join(["%#x" % task.key for task in found])
            raise KeyError("%s is the name of %d tasks: %s" % (which, len(found), keys))
        raise KeyError("no task %s; there are %s" % (which, ", ".join([task.name for task in there])))

    def stack(self, which):
        """The stack of a task by its name or key, with names: where it waits, or what a vCPU runs of it now."""
        return self._steadily(self._stack, which)

    def _stack(self, which):
        from vmm.debug import backtrace

        task = self.task(which)
        for vcpu in self.vm.vcpus:
            if self.current(vcpu) == task.key:
                return backtrace.backtrace(self.vm, vcpu)
        title = "task %s of %s (%s)" % (task.name, self.vm.name, task.state)
        return backtrace.of_saved(self.vm, title, *self.saved(task))

    # -- reading, for derived classes

    @property
    def space(self):
        """The address space that is read: the first vCPU's present one. A view whose processes have their own overrides
        it."""
        return look.space(self.vm.vcpus[0])

    def at(self, where):
        """The gva of a symbol, or of an address. ValueError: the guest has no such symbol, or several."""
        if isinstance(where, int):
            return where
        gva = self.vm.symbols.get(where)
        if gva is None:
            raise ValueError("guest %s has no symbol %s, or several" % (self.vm.name, where))
        return gva

    def number(self, where, size=4):
        """An unsigned number of `size` bytes at a symbol or an address."""
        return self.space.number(self.at(where), size)

    def pointer(self, where):
        """An unsigned number of `word` bytes at a symbol or an address."""
        return self.number(where, self.word)

    def text(self, gva, most=_TEXT):
        """The bytes up to a NUL as text."""
        out = ""
        space = self.space
        for i in range(most):
            byte = space.number(gva + i, 1)
            if not byte:
                break
            out += chr(byte) if 32 <= byte < 127 else "?"
        return out

    def struct(self, layout, where):
        """The Record of a struct (layout.py) at a symbol or an address."""
        return layout.read(self.space, self.at(where))

    def array(self, layout, where, count):
        """Yield the Record of each struct of an array."""
        gva = self.at(where)
        space = self.space
        for i in range(count):
            yield layout.read(space, gva + i * layout.size)

    def list_(self, head, offset=0, ring=True):
        """Yield the gva of each node behind `head`, a symbol or an address: the pointer to the next node is at
        `offset` in it. ring: the list ends at its head, else at NULL. ValueError where it does not end."""
        gva = first = self.at(head)
        for _ in range(_MOST):
            gva = self.pointer(gva + offset)
            if not gva or ring and gva == first:
                return
            yield gva
        raise ValueError("the list at %#x has more than %d nodes, or a loop" % (first, _MOST))


def of(vm, chosen):
    """The view of a guest. chosen: the class that was set, or None. ValueError: it is not known what it runs."""
    if chosen is not None:
        return chosen(vm)
    name = vm.config.get("system")
    if name:
        module, known = SYSTEMS[name]
        return getattr(__import__(module, None, None, [known]), known)(vm)
    raise ValueError(
        'it is not known what guest %s runs: system = "rtos" in its file, or vm.system = CLASS '
        "(docs/task-views.md); Linux has vm.linux" % vm.name
    )
