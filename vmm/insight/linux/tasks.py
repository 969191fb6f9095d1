"""Processes: the list of tasks, and what /proc/PID says of one."""

from micropython import const

from vmm.insight import objects, trees
from vmm.insight.table import Table, shown

_LETTERS = "RSDTtXZPI"  # task_state_array: running, then one for each bit of the state
_REPORTED = const(0x7F)
_IDLE = const(0x402)  # TASK_UNINTERRUPTIBLE | TASK_NOLOAD
_WAITING = const(0x9000)  # TASK_RTLOCK_WAIT, TASK_FROZEN: shown as D
_THREAD = const(0x00200000)  # PF_KTHREAD
_WORKER = const(0x00000020)  # PF_WQ_WORKER
_CUT = const(15)  # characters of a name that may be longer than task.comm
_ARGUMENTS = const(0x10000)  # bytes
_THREADS = ("TID", "STATE", "COMM")
_COLUMNS = ("PID", "PPID", "STATE", "COMM")


def processes(kernel):
    """Yield the leader of each thread group; without the idle task."""
    head = kernel.symbol("init_task") + kernel.types.type("struct task_struct").offset("tasks")
    return objects.entries(kernel.types, kernel.space, head, "struct task_struct", "tasks")


def find(kernel, pid):
    """The struct task_struct of a process or thread by its PID in the first PID namespace."""
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise ValueError("%r is no PID: a number; ps() has them" % (pid,))
    if pid > 0:
        namespace = kernel.variable("init_pid_ns", "struct pid_namespace")
        index = pid - namespace.idr.idr_base
        found = trees.XArray(kernel.types, kernel.space, namespace.at_("idr.idr_rt")).load(index) if index >= 0 else 0
        first = kernel.object("struct pid", found).tasks[0].first if found else None  # of PIDTYPE_PID
        if first:
            type = kernel.types.type("struct task_struct")
            return kernel.object(type, int(first) - type.offset("pid_links"))
    raise ValueError("no process has PID %d" % pid)


def title(task):
    """ "5 (name)", for messages."""
    return "%d (%s)" % (task.pid, shown(task.comm))


def group(task):
    """Yield the threads of a task's process."""
    return task.signal.thread_head.list_("struct task_struct", "thread_node")


def _letter(word, ended):
    """The letter that /proc/PID/stat shows. word: __state; ended: exit_state."""
    if word & _IDLE == _IDLE:
        return "I"
    bits = (word | ended) & _REPORTED
    if word & _WAITING:
        bits |= 2
    number = 0
    while bits:
        bits >>= 1
        number += 1
    return _LETTERS[number]


def _full_name(kernel, task):
    """Offset of a kernel thread's full name in struct kthread, or None: before Linux 5.17 there is `comm` only."""
    if not task.has("worker_private"):
        return None
    kthread = kernel.types.type("struct kthread")
    return kthread.offset("full_name") if kthread.has("full_name") else None


def ps(kernel):
    """A Table. COMM of a kernel thread is its full name, as in /proc/PID/stat."""
    type = kernel.types.type("struct task_struct")
    word = "__state" if type.has("__state") else "state"  # before Linux 5.14
    full = _full_name(kernel, type)
    text = kernel.types.type("char *")
    rows = []
    for task in processes(kernel):
        name = task.comm
        if len(name) >= _CUT and full is not None and task.flags & (_THREAD | _WORKER) == _THREAD:
            private = task.worker_private
            longer = private and kernel.object(text, private.value_ + full)
            if longer:
                name = longer.string_()
        letter = _letter(getattr(task, word), task.exit_state)
        rows.append((task.pid, task.real_parent.tgid, letter, name))
    return Table(_COLUMNS, rows)


def threads(kernel, task):
    """A Table: TID, STATE, COMM of each thread of a process."""
    rows = []
    word = "__state" if task.type_.has("__state") else "state"
    for thread in group(task):
        rows.append((thread.pid, _letter(getattr(thread, word), thread.exit_state), thread.comm))
    return Table(_THREADS, rows)


def cmdline(kernel, pid):
    """The arguments of a process; [] for a kernel thread."""
    mm = find(kernel, pid).mm
    if not mm:
        return []
    start, end = mm.arg_start, mm.arg_end
    if not start <= end <= start + _ARGUMENTS:
        raise ValueError("process %d says that its arguments are %d bytes" % (pid, end - start))
    data = kernel.user(mm).read(start, end - start)
    return [objects.text(part) for part in data[: -1 if data.endswith(b"\0") else None].split(b"\0")] if data else []
