"""Kernel stacks: the callers, of a vCPU that runs kernel code, or of a task that sleeps.

    >>> vm.linux.stack(98)
    task 98 (sh) in system call 0: read(fd=0, buf=0x7ffd5a0c1a37, count=1)
    0xffffffff8183d2c6 __schedule+0x2e6  saved
    ...

A frame's caller is found by ORC (vmm/insight/linux/orc.py), or by its frame pointer where there is no ORC entry; each
frame says which. The guest's stack is not trusted: at most 256 frames, an address that cannot be read ends it, and
Stack.end says why it ended. Source: Linux, arch/x86/kernel/unwind_orc.c and arch/x86/entry/calling.h.
"""

from collections import namedtuple

from micropython import const

from vmm.insight.linux import orc, tasks
from vmm.vtx.x86 import MASK64

_FRAMES = const(256)
_KERNEL = const(1 << 63)

# Offsets in struct pt_regs, which is part of the kernel's ABI
BP = const(32)
ORIG_AX = const(120)
IP = const(128)
CS = const(136)
_SP = const(152)
_FIRST = b"\x55", b"\x48\x89\xe5", b"\x0f\x1f\x44\0\0", b"\x66\x90", b"\x31\xc0", b"\xf3\x0f\x1e\xfa", b"\xc3"
_SAVED = {"r13": 16, "bp": 32, "r10": 56, "rdx": 96, "rdi": 112}

# pc: gva; sp: where its caller's frame ends; how it was found: "registers", "saved", "orc", "frame pointer", "thunk" or
# "stack"; exact: pc is the instruction that runs next, of a vCPU or an interrupted function, not a return address.
Frame = namedtuple("Frame", ("pc", "sp", "how", "exact"))


class Stack(list):
    """Frames, innermost first. end: why there is no more; regs: gva of the struct pt_regs with which user mode entered,
    or None; call: the vmm.insight.linux.calls.Call that the task is in, or None."""

    def __init__(self, symbols, title):
        super().__init__()
        self._symbols = symbols
        self._title = title
        self.end = ""
        self.regs = None
        self.call = None

    def name(self, frame):
        """function+offset of a frame, as the kernel prints it, or None."""
        if frame.exact:
            return self._symbols.at(frame.pc)
        found = self._symbols.around(frame.pc - 1)  # behind a CALL that does not return may be another function
        return self._symbols.text(found, frame.pc) if found else None

    def names(self):
        """The name of each frame."""
        return [self.name(frame) for frame in self]

    def __repr__(self):
        title = self._title
        if self.call is not None:
            title += " in system call %d: %s" % (self.call.number, self.call)
        lines = [title]
        for frame in self:
            lines.append("%#018x %s  %s" % (frame.pc, self.name(frame) or "?", frame.how))
        lines.append("(%s)" % self.end)
        return "\n".join(lines)

    __str__ = __repr__


class Unwinder:
    """Goes from frame to frame. end: why there is no more, once there is none; regs: as Stack.regs."""

    def __init__(self, kernel, ip, sp, bp, exact=True, vcpu=None, how="registers"):
        """vcpu: one whose other registers are still those of the first frame."""
        self._kernel = kernel
        self._space = kernel.space
        self._orc = kernel.orc
        self._frame = Frame(ip, sp, how, exact)
        self._bp = bp
        self._vcpu = vcpu
        self._interrupted = 0  # gva of the innermost struct pt_regs, where it is whole
        self.end = ""
        self.regs = None

    def __iter__(self):
        frame = self._frame
        for _ in range(_FRAMES):
            yield frame
            try:
                following = self._caller(frame)
            except ValueError as error:
                self.end = str(error)
                return
            if following is None:
                return
            if following.sp == frame.sp and following.pc == frame.pc:
                self.end = "the frame is its own caller"
                return
            frame = following
        self.end = "more than %d frames" % _FRAMES

    def _caller(self, frame):
        """The Frame that called, or None; then self.end says why."""
        entry = self._orc.find(frame.pc if frame.exact else frame.pc - 1) if self._orc else None
        if entry is None:
            if frame.pc < _KERNEL:
                return self._of_top(frame, "no kernel code at %#x" % frame.pc)
            return self._of_frame_pointer(frame)
        sp_register, sp_offset, bp_register, bp_offset, kind, exact = entry
        if kind in (orc.END, orc.UNDEFINED):
            if self._kernel.is_thunk(frame.pc):
                return self._of_thunk(frame)
            self.end = "first frame of the task" if kind == orc.END else "the kernel has no way on from here"
            return None
        cfa = self._cfa(frame, sp_register, sp_offset)
        if kind == orc.REGS or kind == orc.PARTIAL:
            return self._of_regs(cfa, kind == orc.PARTIAL, "orc", exact)
        pc = self._space.number(cfa - 8, 8)
        if bp_register:
            base = cfa if bp_register == "prev_sp" else self._bp
            self._bp = self._space.number(base + bp_offset & MASK64, 8)
        if not pc:
            self.end = "first frame of the task"
            return None
        return Frame(pc, cfa, "orc", exact)

    def _of_frame_pointer(self, frame):
        """The Frame that called code without an ORC entry, such as a BPF program's: by the frame pointer, as the kernel
        finds it."""
        bp = self._bp
        if frame.exact and self._begins(frame.pc):
            return self._of_top(frame, "no caller on the stack")
        try:
            if bp & 1:  # the kernel's mark for a struct pt_regs
                return self._of_regs(bp & ~1, False, "frame pointer", True)
            if not frame.sp <= bp + 8:
                return self._of_top(frame, "no frame pointer")
            pc, caller = self._space.number(bp + 8, 8), self._space.number(bp, 8)
        except ValueError as error:
            return self._of_top(frame, str(error))
        if pc and not self._kernel.is_text(pc):
            return self._of_top(frame, "no code at %#x" % pc)
        if not pc:
            self.end = "first frame of the task"
            return None
        self._bp = caller
        return Frame(pc, bp + 16, "frame pointer", False)

    def _begins(self, pc):
        """Whether the code is that of a function's beginning or end: RBP is still, or again, the caller's."""
        try:
            code = self._space.read(pc, 5)
        except ValueError:
            return False
        return any([code.startswith(some) for some in _FIRST])

    def _of_top(self, frame, why):
        """The Frame that called a function that has just begun, or an address without code: the return address is on
        top of the stack, or behind the pushed RBP. None where there is none; then self.end says why."""
        if frame.exact:
            number = self._space.number
            pc = number(frame.sp, 8)
            if self._kernel.is_text(pc):
                return Frame(pc, frame.sp + 8, "stack", False)
            if pc == self._bp:
                pc = number(frame.sp + 8, 8)
                if self._kernel.is_text(pc):
                    return Frame(pc, frame.sp + 16, "stack", False)
        self.end = why
        return None

    def _of_thunk(self, frame):
        """The Frame that called a thunk of the kernel (retpoline, return thunk), which has no ORC entry: on top of the
        stack is the return address, or, at its last instruction, the function that it jumps to."""
        pc = self._space.number(frame.sp, 8)
        if not self._kernel.is_text(pc):
            self.end = "no code at %#x" % pc
            return None
        return Frame(pc, frame.sp + 8, "thunk", self._kernel.begins(pc))

    def _cfa(self, frame, register, offset):
        """Where the caller's frame begins."""
        if register == "sp":
            return frame.sp + offset & MASK64
        if register == "bp":
            return self._bp + offset & MASK64
        if register == "sp_indirect":
            return self._space.number(frame.sp, 8) + offset & MASK64
        if register == "bp_indirect":
            return self._space.number(self._bp + offset & MASK64, 8)
        if self._interrupted and register in _SAVED:
            return self._space.number(self._interrupted + _SAVED[register], 8) + offset & MASK64
        if self._vcpu is not None and frame is self._frame and register in _SAVED:
            return getattr(self._vcpu, register) + offset & MASK64
        raise ValueError("register %s of the frame is not known" % (register or "none"))

    def _of_regs(self, gva, partial, how, exact):
        """The frame that a struct pt_regs at gva interrupted; partial: only the CPU's part of it, from IP on."""
        if partial:
            gva -= IP
        number = self._space.number
        if number(gva + CS, 8) & 3:
            self.end = "user mode"
            self.regs = gva
            return None
        self._interrupted = 0 if partial else gva
        if not partial:
            self._bp = number(gva + BP, 8)
        return Frame(number(gva + IP, 8), number(gva + _SP, 8), how, exact)


def of_vcpu(kernel, vcpu):
    """The Unwinder of the kernel code that a vCPU is in. ValueError: it is in user mode."""
    if vcpu.cpl:
        raise ValueError("vCPU %d is in user mode: it has no kernel stack now" % vcpu.number)
    return Unwinder(kernel, vcpu.rip, vcpu.rsp, vcpu.rbp, True, vcpu)


def of_sleeping(kernel, task):
    """The Unwinder of a task that is switched out."""
    sp = task.thread.sp
    saved = kernel.object("struct inactive_task_frame", sp)
    ip = saved.ret_addr
    exact = ip == kernel.find("ret_from_fork")  # a new task has never called
    return Unwinder(kernel, ip, sp + saved.type_.size, saved.bp, exact, None, "saved")


def collect(kernel, unwinder, title):
    """The Stack of an Unwinder's frames."""
    stack = Stack(kernel.symbols, title)
    for frame in unwinder:
        stack.append(frame)
    stack.end = unwinder.end
    stack.regs = unwinder.regs
    if stack.regs is not None:
        _add_call(kernel, stack)
    return stack


def _add_call(kernel, stack):
    number = kernel.space.number(stack.regs + ORIG_AX, 8)
    if number >> 63:
        return  # an interrupt or exception
    from vmm.insight.linux import calls

    stack.call = calls.of_registers(kernel, stack.regs, None)


def of_task(kernel, task):
    """The Stack of a task: of the vCPU that runs it now, or where it sleeps."""
    title = "task " + tasks.title(task)
    if task.exit_state and not task.stack:
        stack = Stack(kernel.symbols, title)
        stack.end = "the task has ended: it has no stack any more"
        return stack
    for vcpu in kernel.vm.vcpus:
        if kernel.current(vcpu) == task:
            title += " runs on vCPU %d" % vcpu.number
            if vcpu.cpl:
                stack = Stack(kernel.symbols, title)
                stack.end = "user mode"
                return stack
            return collect(kernel, of_vcpu(kernel, vcpu), title)
    return collect(kernel, of_sleeping(kernel, task), title)
