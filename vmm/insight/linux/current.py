"""The task that a vCPU runs in Linux, and the filters pid= and comm=.

Linux keeps the current task in a per-CPU variable: `current_task`, or a member of `pcpu_hot`. Its place is found once
for each vCPU, by the kernel's GS base, and then stays in the frame, so that a filter reads guest memory and no field of
the VMCS. What the kernel says is checked to lie in its RAM before it is read.

pid= is the PID of a process, which all its threads share (task_struct.tgid), in the first PID namespace; comm= is the
name of the thread. As long as Linux is not known, while it boots say, no task has either; known() tries again from time
to time. It waits for VMCOREINFO, which a kernel makes in the middle of its boot: until then each search for its tables
would take some seconds of the guest's time. A kernel without VMCOREINFO is searched when it has run for half a minute.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.insight import vmcoreinfo
from vmm.insight.objects import Object
from vmm.memory.look import walk
from vmm.vtx.frame import TASK, TASK_COMM, TASK_KNOWN, TASK_PID
from vmm.vtx.x86 import MASK64, PAGE

_COMM = const(16)  # bytes
_FIRST_WAIT_MS = const(20)
_LONGEST_WAIT_MS = const(2000)
_BOOT_SECONDS = const(30)

# Words of a filter
_HAS_PID = const(0)
_PID = const(1)
_HAS_COMM = const(2)
_NAME = const(3)  # 4
_MASK = const(7)  # 4
_WORDS = const(11)

# Words of what is known of the kernel
_ROOT = const(0)  # 2: its page tables
_SHIFT = const(2)
_AT_PID = const(3)  # offsets in struct task_struct
_AT_COMM = const(4)
_KNOWN_WORDS = const(5)


class Current:
    """The current tasks of one guest's vCPUs. task(vcpu): the struct task_struct; filter(chosen): pid= and comm=."""

    def __init__(self, vm):
        self.vm = vm
        self.words = array("I", [0] * _KNOWN_WORDS)
        self.place = self._place  # one object
        self.locate = bind(locate, self.words, vm.memory.table)
        self._starts = -1
        self._symbol = 0
        self._type = None  # struct task_struct
        self._wait_ms = 0
        self._next = 0  # host TSC before which the kernel is not looked for again

    def learn(self):
        """Find what is needed of the kernel: page tables, symbols, offsets. ValueError says why it is not known."""
        vm = self.vm
        if self._starts == vm.starts:
            return
        kernel = vm.kernel
        kernel.processors  # found now: ValueError before the kernel has set it up
        space = kernel.space
        task = kernel.types.type("struct task_struct")
        words = self.words
        pid = task.offset("pid")
        if space.root < 0 or task.offset("tgid") != pid + 4:
            raise ValueError("guest %s has a kernel of another kind: its tasks are not known" % vm.name)
        words[_ROOT] = space.root & 0xFFFFFFFF
        words[_ROOT + 1] = space.root >> 32
        words[_SHIFT] = space.shift
        words[_AT_PID] = pid
        words[_AT_COMM] = task.offset("comm")
        hot = kernel.symbols.get("pcpu_hot")  # Linux 6.2 to 6.14
        self._symbol = kernel.symbol("current_task") if hot is None else hot
        if hot is not None:
            self._symbol += kernel.types.type("struct pcpu_hot").offset("current_task")
        self._type = task
        self._image = kernel.symbols.get("_stext"), kernel.symbols.get("_end")
        self._starts = vm.starts

    def known(self):
        """Whether learn() has succeeded; it is tried again from time to time."""
        if self._starts == self.vm.starts:
            return True
        now = cpu.rdtsc()
        if now < self._next:
            return False
        try:
            self._wait_for_tables()
            self.learn()
            self._wait_ms = 0
            return True
        except (ValueError, KeyError, AttributeError, MemoryError):
            self._wait_ms = min(max(2 * self._wait_ms, _FIRST_WAIT_MS), _LONGEST_WAIT_MS)
            self._next = cpu.rdtsc() + cpu.tsc_hz // 1000 * self._wait_ms
            return False

    def _wait_for_tables(self):
        """ValueError where learn() would have to search for long."""
        vm = self.vm
        clock = vm.vcpus[0].clock
        boots = clock.now() + clock.skew < _BOOT_SECONDS * clock.hz
        if boots and not vm.symbols.loaded and not vm.config.get("symbols"):
            vmcoreinfo.of(vm)

    def _place(self, vcpu):
        """The hpa of where the kernel keeps the vCPU's current task, or 0; kept in the frame."""
        if not self.known():
            return 0
        kernel = self.vm.kernel
        try:
            gva = kernel.processors.base(kernel.processors.number_of(vcpu)) + self._symbol & MASK64
            first, end = self._image
            if first is not None and end is not None and first <= gva < end:
                return 0  # the section in the image, until the kernel has given each processor an area of its own
            gpa = kernel.space.translate(gva)
            if gpa & 7:
                return 0
            hpa = self.vm.memory.hpa(gpa, 8)
        except ValueError:
            return 0
        vcpu.scheduled.put(TASK_KNOWN, 0)
        vcpu.scheduled.put(TASK, hpa)
        return hpa

    def task(self, vcpu):
        """The vCPU's struct task_struct, without the look-ups of symbols that kernel.current() takes. ValueError."""
        self.learn()
        hpa = vcpu.scheduled.get(TASK) or self._place(vcpu)
        if not hpa:
            raise ValueError("vCPU %d of guest %s runs no code of Linux yet" % (vcpu.number, self.vm.name))
        gva = int.from_bytes(uctypes.bytes_at(hpa, 8), "little")
        return Object(self._type, self.vm.kernel.space, gva)

    def filter(self, chosen):
        """Return filter(link, below) for pid= and comm= (vmm/policies/general.py)."""
        vm = self.vm
        if (vm.config.get("protocol") or "linux") != "linux":
            self.learn()  # raises
        words = array("I", [0] * _WORDS)
        if "pid" in chosen:
            words[_HAS_PID] = 1
            words[_PID] = chosen["pid"]
        if "comm" in chosen:
            words[_HAS_COMM] = 1
            name = chosen["comm"].encode()
            size = len(name) + 1  # the bytes behind the NUL are undefined
            for i in range(4):
                words[_NAME + i] = int.from_bytes((name + bytes(_COMM))[4 * i : 4 * i + 4], "little")
                words[_MASK + i] = (1 << 8 * min(max(size - 4 * i, 0), 4)) - 1
        if vm.powered:
            self.known()  # now, not at the first exit
        return lambda link, below: bind(of_task, words, self.locate, self.place, link, below)


def of(vm):
    """The guest's Current."""
    if vm.current_task is None:
        vm.current_task = Current(vm)
    return vm.current_task


@micropython.viper
def locate(words: ptr32, table, place, vcpu) -> int:
    """Put the hpas of the current task's PID and name into the frame (TASK_PID, TASK_COMM): 1, or 0: not known."""
    f = ptr32(vcpu)
    hpa = int(f[TASK]) | int(f[TASK + 1]) << 32
    if hpa == 0:
        hpa = int(place(vcpu))
        if hpa == 0:
            return 0
    s = ptr32(hpa)
    gva = int(s[0]) | int(s[1]) << 32
    root = int(words[_ROOT]) | int(words[_ROOT + 1]) << 32
    pid = int(walk(table, root, int(words[_SHIFT]), gva + int(words[_AT_PID]), 1))
    comm = int(walk(table, root, int(words[_SHIFT]), gva + int(words[_AT_COMM]), 1))
    if pid < 0 or comm < 0 or pid & PAGE - 1 > PAGE - 8 or comm & PAGE - 1 > PAGE - _COMM:
        f[TASK_KNOWN] = 0
        f[TASK_KNOWN + 1] = 0
        return 0
    f[TASK_KNOWN] = gva
    f[TASK_KNOWN + 1] = gva >> 32
    f[TASK_PID] = pid
    f[TASK_PID + 1] = pid >> 32
    f[TASK_COMM] = comm
    f[TASK_COMM + 1] = comm >> 32
    return 1


# It names no global: each look-up would take 60 ticks.
@micropython.viper
def of_task(words: ptr32, locate, place, link, below, vcpu) -> int:
    """Go on to `link` where the current task has the process and the name of the filter, else to `below`."""
    f = ptr32(vcpu)
    hpa = int(f[TASK]) | int(f[TASK + 1]) << 32
    known = 0
    if hpa:
        s = ptr32(hpa)
        if s[0] == f[TASK_KNOWN] and s[1] == f[TASK_KNOWN + 1] and s[1]:
            known = 1
    if known == 0:
        if int(locate(place, vcpu)) == 0:
            return int(below(vcpu))
    if words[_HAS_PID]:
        p = ptr32(int(f[TASK_PID]) | int(f[TASK_PID + 1]) << 32)
        if p[1] != words[_PID]:
            return int(below(vcpu))
    if words[_HAS_COMM]:
        c = ptr32(int(f[TASK_COMM]) | int(f[TASK_COMM + 1]) << 32)
        i = 0
        while i < 4:
            if int(c[i]) & int(words[_MASK + i]) != int(words[_NAME + i]):
                return int(below(vcpu))
            i += 1
    return int(link(vcpu))
