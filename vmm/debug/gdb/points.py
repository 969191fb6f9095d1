"""A guest's breakpoints and watchpoints as gdb sets them (Z0 to Z4), by linear address.

A software breakpoint is a hidden one (vmm/debug/hidden.py) where its page is mapped. Where it is not yet, and for a
hardware breakpoint or a watchpoint, a debug register of the CPU's matches the address, mapped or not
(debug_registers.py). Where none is free a breakpoint waits, and is tried again whenever the guest changes its page
tables by MOV to CR0, CR3 or CR4; a watchpoint takes the rights of its pages (pagewatch.py).
"""

from micropython import const

from vmm import verdict
from vmm.debug import debug_registers
from vmm.debug.gdb.memory import translate
from vmm.debug.gdb.registers import pc
from vmm.loaders.state import GPRS
from vmm.memory import look
from vmm.policies.events import CR
from vmm.policies.policy import decorator
from vmm.vtx.vmcs_bits import CR_GPR, CR_GPR_SHIFT, CR_MOV_TO, CR_NUMBER, CR_TYPE
from vmm.vtx.x86 import CR0_PG, EFER_LMA, EFER_LME, EFER_NXE

SOFTWARE = const(0)  # the numbers of gdb's packets
HARDWARE = const(1)
WRITE = const(2)
READ = const(3)
ACCESS = const(4)

_WORDS = {WRITE: b"watch", READ: b"rwatch", ACCESS: b"awatch"}
_MOST = const(256)


class Point:
    """One breakpoint or watchpoint. parts: functions that remove its parts."""

    def __init__(self, kind, gva):
        self.kind = kind
        self.gva = gva
        self.parts = []


class Points:
    """Those of one VM. stop(vcpu, why): stops it; why: bytes for gdb's stop reply."""

    def __init__(self, vm, stop):
        self.vm = vm
        self._stop = stop
        self._all = {}  # (kind, gva, size): Point
        self._waiting = []  # Points that have no place yet
        self._policy = None  # on control registers, while some wait
        self.registers = debug_registers.DebugRegisters(vm, self._matched)
        self._by_register = {}  # Match: Point

    def at(self, gva):
        """Whether there is a breakpoint at a gva."""
        return any([point.gva == gva and point.kind <= HARDWARE for point in self._all.values()])

    def insert(self, vcpu, kind, gva, size):
        """Set one. ValueError where that is not possible."""
        key = kind, gva, size
        if key in self._all:
            return
        if len(self._all) >= _MOST:
            raise ValueError("%d breakpoints and watchpoints: no more" % _MOST)
        point = Point(kind, gva)
        if kind <= HARDWARE:
            self._break(vcpu, point)
        else:
            self._watch(vcpu, point, size)
        self._all[key] = point

    def remove(self, kind, gva, size):
        """Remove one, if it is there."""
        point = self._all.pop((kind, gva, size), None)
        if point is not None:
            self._close(point)

    def clear(self):
        """Remove them all."""
        for key in list(self._all):
            self.remove(*key)

    def _close(self, point):
        for part in point.parts:
            part()
        point.parts = []
        if point in self._waiting:
            self._waiting.remove(point)
            self._wait()

    # -- breakpoints

    def _break(self, vcpu, point):
        if point.kind == HARDWARE and self._match(point, point.gva, 1, debug_registers.EXECUTE):
            return
        if self._hide(point, lambda gva: translate(vcpu, gva)):
            return
        if point.kind == SOFTWARE and self._match(point, point.gva, 1, debug_registers.EXECUTE):
            return
        self._waiting.append(point)
        self._wait()

    def _hide(self, point, translate_):
        """A hidden breakpoint, if its address is mapped to RAM."""
        try:
            handle = self.vm.hidden.insert(translate_(point.gva), self._reached(point))
        except ValueError:
            return False
        point.parts.append(handle.remove)
        return True

    def _reached(self, point):
        def reached(vcpu):
            if pc(vcpu) != point.gva:
                return None  # the page is mapped elsewhere, too
            self._stop(vcpu, _why(point))
            return verdict.RETRY

        return reached

    def _wait(self):
        """Watch the control registers while breakpoints wait."""
        if self._waiting and self._policy is None:
            self._policy = decorator(self.vm, CR, {"write": True}, False)(self._changes)
        elif not self._waiting and self._policy is not None:
            self._policy.detach()
            self._policy = None

    def _changes(self, vcpu):
        """Policy on MOV to a control register: with the new value the addresses may be mapped."""
        q = vcpu.qualification
        number = q & CR_NUMBER
        now = {0: vcpu.cr0, 3: vcpu.cr3, 4: vcpu.cr4}
        if number not in now or q & CR_TYPE != CR_MOV_TO:
            return
        now[number] = getattr(vcpu, GPRS[(q & CR_GPR) >> CR_GPR_SHIFT])
        efer = vcpu.efer
        if now[0] & CR0_PG and efer & EFER_LME:
            efer |= EFER_LMA
        walker = self.vm.new_walker()
        walker.load(now[0], now[3], now[4], efer & (EFER_LMA | EFER_NXE))
        space = look.Space(walker, self.vm.memory)
        for point in list(self._waiting):
            if self._hide(point, space.translate):
                self._waiting.remove(point)
        self._wait()

    def restarted(self):
        """Set breakpoints anew in a guest that starts anew: nothing is mapped, and its registers have been reset."""
        self.registers.restarted()
        for point in self._all.values():
            if point.kind == SOFTWARE or point in self._waiting:
                self._close(point)
                self._break(self.vm.vcpus[0], point)

    # -- debug registers

    def _match(self, point, gva, size, kind):
        wanted = self.registers.take(gva, size, kind)
        if wanted is None:
            return False
        self._by_register[wanted] = point
        point.parts.append(lambda: self._release(wanted))
        return True

    def _release(self, wanted):
        self._by_register.pop(wanted, None)
        self.registers.give(wanted)

    def _matched(self, vcpu, wanted):
        point = self._by_register.get(wanted)
        if point is not None:
            self._stop(vcpu, _why(point))

    def stepped(self, vcpu, completed):
        """The watchpoint that a single step has hit: bytes for the stop reply, or None."""
        for wanted in self.registers.stepped(vcpu, completed):
            point = self._by_register.get(wanted)
            if point is not None and point.kind > HARDWARE:
                return _why(point)
        return None

    # -- watchpoints

    def _watch(self, vcpu, point, size):
        kind = debug_registers.WRITE if point.kind == WRITE else debug_registers.READ_WRITE
        pieces = _aligned(point.gva, size)
        if len(pieces) <= self.registers.free():
            for gva, length in pieces:
                self._match(point, gva, length, kind)
            return
        from vmm.debug.gdb.pagewatch import PageWatch

        watch = PageWatch(
            self.vm, point.gva, size, point.kind != WRITE, lambda gva: translate(vcpu, gva), self._on_hit(point)
        )
        point.parts.append(watch.close)

    def _on_hit(self, point):
        return lambda vcpu, _: self._stop(vcpu, _why(point))


def _why(point):
    """Words of gdb's stop reply."""
    if point.kind == SOFTWARE:
        return b"swbreak:;"
    if point.kind == HARDWARE:
        return b"hwbreak:;"
    return _WORDS[point.kind] + (":%x;" % point.gva).encode()


def _aligned(gva, size):
    """[(gva, 1, 2, 4 or 8 bytes)], aligned; some more than debug registers where there would be many."""
    pieces = []
    while size > 0 and len(pieces) < 5:
        length = 8
        while length > size or gva & (length - 1):
            length >>= 1
        pieces.append((gva, length))
        gva += length
        size -= length
    return pieces
