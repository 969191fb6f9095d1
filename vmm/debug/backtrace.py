"""The callers of what a vCPU executes: vm.backtrace().

Three ways, and the first line says which: a Linux kernel's own tables (ORC, vmm/insight/linux/stack.py); frame
pointers, where RBP leads to return addresses in code; else a scan of the stack for addresses behind a CALL, which may
show a stale one. At most FRAMES frames. The stack is the guest's, so any of it may be wrong.
"""

from micropython import const

from vmm.debug import instructions, places
from vmm.debug.machine import Machine, namer
from vmm.memory.paging import FETCH
from vmm.vtx.x86 import INSTRUCTION_BYTES, MASK64

FRAMES = const(64)
_SCAN = const(4096)  # bytes of stack
_CALLS = (5, 2, 3, 6, 7)  # bytes of the usual CALLs


class Frame:
    """pc: gva; sp: where the caller's frame ends, or None; how: "orc", "frame pointer", "scan", ..."""

    def __init__(self, pc, sp, how):
        self.pc = pc
        self.sp = sp
        self.how = how


class Backtrace(list):
    """Frames, innermost first. by: the way; end: why there is no more."""

    def __init__(self, vm, title, by):
        super().__init__()
        self._vm = vm
        self.title = title
        self.by = by
        self.end = ""
        self._name = namer(vm)

    def __repr__(self):
        lines = ["%s, by %s" % (self.title, self.by)]
        for number, frame in enumerate(self):
            lines.append("#%-2d %#018x%s" % (number, frame.pc, self._name(frame.pc)))
        if self.end:
            lines.append("(%s)" % self.end)
        return "\n".join(lines)

    __str__ = __repr__


def backtrace(vm, vcpu):
    """The Backtrace of a vCPU."""
    title = "vCPU %d of %s" % (vcpu.number, vm.name)
    if not vcpu.cpl and vcpu.bits == 64:
        try:
            return _linux(vm, vcpu, title)
        except ValueError:
            pass  # no Linux, or its tables are not known
    m = Machine(vcpu)
    trace = Backtrace(vm, title, "frame pointers")
    trace.append(Frame(places.linear_rip(vcpu), vcpu.rsp, "RIP"))
    _by_frames(m, trace)
    if len(trace) < 2:
        trace.by = "a scan of the stack"
        _by_scan(m, trace, vcpu.rsp)
    return trace


def of_saved(vm, title, pc, sp, bp=None):
    """The Backtrace of a task that is switched out; in the mode and the address space of the first vCPU.

    pc: where the task goes on, sp: its stack pointer then; bp: its frame pointer, None where its code has none.
    """
    m = Machine(vm.vcpus[0])
    trace = Backtrace(vm, title, "frame pointers")
    trace.append(Frame(pc, sp, "saved"))
    if bp is not None:
        _follow_frames(m, trace, sp, bp)
    if len(trace) < 2:
        trace.by = "a scan of the stack"
        _by_scan(m, trace, sp)
    return trace


def _linux(vm, vcpu, title):
    from vmm.insight.linux import stack

    found = stack.collect(vm.kernel, stack.of_vcpu(vm.kernel, vcpu), title)
    ways = [frame.how for frame in found if frame.how != "registers"]
    by = "ORC" if "orc" in ways else ways[0] + "s" if ways else "the kernel's tables"
    trace = Backtrace(vm, title, by)
    trace.end = found.end
    for frame in found:
        trace.append(Frame(frame.pc, frame.sp, frame.how))
    return trace


def _called(m, pc):
    """Whether a CALL ends at pc, which can be executed."""
    if not pc or m.walk(pc - 1, FETCH, m.cpl).why:
        return False
    bits = m.vcpu.bits
    for size in _CALLS:
        code = instructions.read(m, pc - size & MASK64, size)
        try:
            line = instructions.decode(code, bits, pc - size)
        except ValueError:
            continue
        if len(line.code) == size and line.name.startswith("call"):
            return True
    return False


def _word(m, gva, size):
    try:
        return int.from_bytes(m.look(gva & MASK64, size), "little")
    except ValueError:
        return None


def _by_frames(m, trace):
    vcpu = m.vcpu
    size = 8 if vcpu.bits == 64 else 4 if vcpu.bits == 32 else 2
    mask = MASK64 if size == 8 else 0xFFFFFFFF
    rsp, bp = vcpu.rsp & mask, vcpu.rbp & mask
    base = 0 if size == 8 else vcpu.segment("ss")[1]
    line = None
    try:
        gva = places.linear_rip(vcpu)
        line = instructions.decode(instructions.read(m, gva, INSTRUCTION_BYTES), vcpu.bits, gva)
    except ValueError:
        pass
    if line is not None and (line.name == "ret" or line.code[-1] == 0x55 and len(line.code) == 1):
        pc = _word(m, base + rsp, size)  # at its first or last instruction a function has no frame
        if pc is not None and _called(m, pc):
            trace.append(Frame(pc, rsp + size, "stack"))
    _follow_frames(m, trace, rsp, bp)


def _follow_frames(m, trace, least, bp):
    """Follow the chain of frame pointers; least: the lowest address at which a frame may be."""
    size = m.vcpu.bits // 8
    base = 0 if size == 8 else m.vcpu.segment("ss")[1]
    while len(trace) < FRAMES:
        if bp < least or bp & (size - 1):
            trace.end = "no frame pointer" if len(trace) < 2 else "the first frame"
            return
        pc, caller = _word(m, base + bp + size, size), _word(m, base + bp, size)
        if pc is None or not _called(m, pc):
            trace.end = "no code behind a call" if pc else "the first frame"
            return
        trace.append(Frame(pc, bp + 2 * size, "frame pointer"))
        least, bp = bp + size, caller
    trace.end = "more than %d frames" % FRAMES


def _by_scan(m, trace, sp):
    size = m.vcpu.bits // 8
    base = 0 if size == 8 else m.vcpu.segment("ss")[1]
    for offset in range(0, _SCAN, size):  # a kernel's addresses are too large for a range
        at = sp + offset
        pc = _word(m, base + at, size)
        if pc is None:
            trace.end = "the stack ends at %#x" % at
            return
        if _called(m, pc):
            trace.append(Frame(pc, at + size, "scan"))
            if len(trace) >= FRAMES:
                break
    trace.end = "%d bytes of stack were searched" % _SCAN
