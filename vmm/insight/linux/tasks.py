"""Processes: the list of tasks, and what /proc/PID says of one."""

from micropython import const

from vmm.insight import objects
from vmm.insight.table import Table

_LETTERS = "RSDTtXZPI"  # task_state_array: running, then one for each bit of the state
_REPORTED = const(0x7F)
_IDLE = const(0x402)  # TASK_UNINTERRUPTIBLE | TASK_NOLOAD
_WAITING = const(0x9000)  # TASK_RTLOCK_WAIT, TASK_FROZEN: shown as D
_THREAD = const(0x00200000)  # PF_KTHREAD
_WORKER = const(0x00000020)  # PF_WQ_WORKER
_ARGUMENTS = const(0x10000)  # bytes
_COLUMNS = ("PID", "PPID", "STATE", "COMM")


def processes(kernel):
    """Yield the leader of each thread group; without the idle task."""
    head = kernel.symbol("init_task") + kernel.types.type("struct task_struct").offset("tasks")
    return objects.entries(kernel.types, kernel.space, head, "struct task_struct", "tasks")


def find(kernel, pid):
    """The task of a process by its PID in the first PID namespace."""
    for task in processes(kernel):
        if task.pid == pid:
            return task
    raise ValueError("no process has PID %d" % pid)


def state(task):
    """The letter that /proc/PID/stat shows."""
    word = task.__state if task.type_.has("__state") else task.state
    if word & _IDLE == _IDLE:
        return "I"
    bits = (word | task.exit_state) & _REPORTED
    if word & _WAITING:
        bits |= 2
    number = 0
    while bits:
        bits >>= 1
        number += 1
    return _LETTERS[number]


def name(kernel, task):
    """The name that /proc/PID/stat shows: that of a kernel thread may be longer than `comm` (Linux 5.17 on)."""
    flags = task.flags
    if flags & _THREAD and not flags & _WORKER and task.type_.has("worker_private"):
        private = task.worker_private
        if private:
            full = kernel.object("struct kthread", private.value_).full_name
            if full:
                return full.string_()
    return task.comm


def ps(kernel):
    """A Table."""
    rows = []
    for task in processes(kernel):
        rows.append((task.pid, task.real_parent.tgid, state(task), name(kernel, task)))
    return Table(_COLUMNS, rows)


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
