"""Thread IDs of gdb's remote protocol: pPID.TID, one inferior a guest, one thread a vCPU (TID is its number + 1).

With `monitor tasks on` a Linux guest's other tasks are threads, too: TID is TASKS + PID, registers are those that the
scheduler has kept on the task's stack. Source: GDB manual, "thread-id syntax"; Linux, arch/x86/include/asm/switch_to.h.
"""

from micropython import const

from vmm.debug.gdb.packets import BadPacket, number
from vmm.debug.gdb.registers import pc
from vmm.insight.table import shown

TASKS = const(1 << 24)  # above all vCPUs
ANY = const(0)
ALL = const(-1)
_MOST = const(4096)  # tasks in a list
_FRAME = ("r15", "r14", "r13", "r12", "rbx", "rbp", "rip")  # struct inactive_task_frame


def parse(text):
    """(pid or None, tid) of a thread-id; ALL and ANY for -1 and 0. BadPacket."""
    if not text.startswith(b"p"):
        return None, _one(text)
    pid, dot, tid = text[1:].partition(b".")
    return _one(pid), _one(tid) if dot else ALL


def _one(text):
    return ALL if text == b"-1" else number(text)


def name(pid, tid):
    """The thread-id of gdb's packets, bytes."""
    return ("p%x.%x" % (pid, tid)).encode()


class Task:
    """A task of Linux that is switched out, with the registers that the kernel has saved."""

    def __init__(self, kernel, task):
        self.task = task
        sp = int(task.thread.sp)
        space = kernel.space
        self._values = {}
        for i, register in enumerate(_FRAME):
            self._values[register] = space.number(sp + 8 * i, 8)
        self._values["rsp"] = sp + 8 * len(_FRAME)
        self._values["cs"] = 0x10
        self._values["ss"] = 0x18
        self._values["mode"] = 64
        self.space = kernel.user(task.mm) if task.mm else space

    @property
    def pc(self):
        """The gva at which it goes on."""
        return self._values["rip"]

    def read(self, row):
        """The bytes of a register; None: not known."""
        value = self._values.get(row.name)
        return None if value is None else value.to_bytes(row.bits >> 3, "little")


class Threads:
    """The threads of each Guest (guest.py). tasks: whether Linux tasks are threads."""

    def __init__(self):
        self.tasks = False
        self._found = {}  # of the stop at hand: {Guest: {PID: the kernel's task}}

    def forget(self):
        """Look up tasks anew at the next stop: the guests go on."""
        self._found = {}

    def _of(self, guest):
        found = self._found.get(guest)
        if found is None:
            found = self._found[guest] = {task.pid: task for task in _tasks(guest.vm)}
        return found

    def vcpu(self, guest, tid):
        """The vCPU of a TID; for a task's, ANY and ALL the first one. BadPacket."""
        vcpus = guest.vm.vcpus
        if tid in (ANY, ALL) or tid >= TASKS:
            return vcpus[0]
        if tid > len(vcpus):
            raise BadPacket("no thread %d" % tid)
        return vcpus[tid - 1]

    def task(self, guest, tid):
        """The Task of a TID, or None for a vCPU's. ValueError where it has ended."""
        if tid < TASKS:
            return None
        task = self._of(guest).get(tid - TASKS)
        if task is None:
            raise ValueError("the task %d has ended" % (tid - TASKS))
        return Task(guest.vm.kernel, task)

    def ids(self, guest):
        """The TIDs of a guest, a list."""
        found = [vcpu.number + 1 for vcpu in guest.vm.vcpus]
        if self.tasks:
            running = self._running(guest)
            found += sorted([TASKS + pid for pid in self._of(guest) if pid not in running])
        return found

    def _running(self, guest):
        """PIDs of the tasks that run: they are the vCPUs' threads."""
        kernel = guest.vm.kernel
        return [kernel.current(vcpu).pid for vcpu in guest.vm.vcpus]

    def alive(self, guest, tid):
        """Whether a TID is a vCPU, or a task that has not ended."""
        if tid >= TASKS:
            return tid - TASKS in self._of(guest)
        return tid <= len(guest.vm.vcpus)

    def words(self, guest, tid):
        """The text of `info threads` for a thread."""
        vm = guest.vm
        if tid >= TASKS:
            task = self.task(guest, tid).task
            return "%s: %s (PID %d)" % (vm.name, shown(task.comm), task.pid)
        vcpu = self.vcpu(guest, tid)
        text = "%s: vCPU %d, %d-bit" % (vm.name, vcpu.number, vcpu.bits)
        if vcpu.scheduled.before != "running":
            text += ", " + vcpu.scheduled.before
        if self.tasks:
            task = vm.kernel.current(vcpu)
            text += ", %s (PID %d)" % (shown(task.comm), task.pid)
        return text + vm.name_of(pc(vcpu))


def _tasks(vm):
    """All threads of all processes, bounded."""
    from vmm.insight.linux.tasks import group

    found = []
    for leader in vm.linux.tasks():
        for task in group(leader):
            found.append(task)
            if len(found) == _MOST:
                return found
    return found
