"""Any instruction on device memory: the CPU executes it itself, on pages that stand in for the devices'.

vmm/emulation/operands.py finds what the instruction reads. That is read from the devices, once, into pages of the
monitor's, which EPT maps at the gpas of the devices' pages for a single step (vmm/policies/stepper.py). Where the
instruction faults, the guest gets the fault and no device is written; otherwise the devices get what the instruction
has written. Interrupts and NMIs are held meanwhile. MOV to SS and POP SS are emulated here, as no single-step trap
follows them. Limit: a step that the prompt aborts (by detaching a policy) reads the devices again. Source: SDM Vol. 2,
"MOV", "POP"; Vol. 3A, "Segment Descriptors".
"""

import cpu
import uctypes
from micropython import const

from vmm import fault, verdict
from vmm.emulation.decode import SS, DecodeError
from vmm.emulation.emulate import RSP
from vmm.emulation.operands import READ, STORE, UPDATE, Operands
from vmm.fault import Fault
from vmm.memory.ept import RWX, R, W
from vmm.memory.pages import OutOfMemory
from vmm.vtx import segments
from vmm.vtx.segments import V8086
from vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import (
    BLOCKING_BY_MOV_SS,
    RIGHTS_ACCESSED,
    RIGHTS_CODE,
    RIGHTS_DPL_SHIFT,
    RIGHTS_UNUSABLE,
    RIGHTS_WRITABLE,
)
from vmm.vtx.x86 import CR0_PE, PAGE, PAGE_MASK, RFLAGS_IF, RFLAGS_TF, RFLAGS_VM

_MOST = const(8)  # pages of one instruction; PUSHA, ENTER and all others need fewer
PUSHF = const(0x9C)
MOV_SREG = const(0x8E)
POP_SS = const(0x17)
_TF_IF = const(RFLAGS_TF | RFLAGS_IF)


class _Place:
    """Bytes of an operand within one page that is not RAM, or that a policy answers for."""

    def __init__(self, operand, at, gpa, size, answer):
        self.operand = operand
        self.at = at  # offset in the operand
        self.gpa = gpa
        self.size = size
        self.answer = None if answer is None else (answer & (1 << 8 * size) - 1).to_bytes(size, "little")
        self.before = None  # the bytes that the instruction reads there
        self.hpa = 0  # of the place in the page that stands in


class OnCpu:
    """Executes instructions of one VM. guest: its vmm.emulation.access.GuestCpu."""

    def __init__(self, guest):
        self._guest = guest
        self._vm = guest.vm
        self._operands = Operands(guest)
        self._free = []  # pages of the monitor's, hpa
        self._laid = {}  # {gpa of a page: hpa of the one that stands in for it}
        self._undo = []  # for Ept.lift(), the last first: a later lay() may use an earlier one's tables
        self._places = []

    def execute(self, vcpu, code, answer):
        """Let the CPU execute the instruction at RIP, whose bytes are `code`; returns a verdict.

        answer: the value that the operand on the exit's page reads, or that is written there instead. Fault,
        DecodeError.
        """
        operands = self._operands.find(code)
        if self._loads_ss():
            return self._load_ss(vcpu, operands[0], answer)
        places = self._find(vcpu, operands, answer)
        if not places:
            raise DecodeError("it accesses other memory than its known operands: %s" % bytes(code).hex())
        pages = {place.gpa & PAGE_MASK for place in places}
        if len(pages) + len(self._laid) > _MOST:
            raise DecodeError("it accesses more than %d pages outside RAM" % _MOST)
        try:
            while len(self._free) < len(pages):
                self._free.append(self._vm.take_page())
            for place in places:
                self._read(place)
            for page in pages:
                self._lay(page)
        except OutOfMemory as error:
            self._lift()
            raise DecodeError("no host memory for it: %s" % error)
        except BaseException:
            self._lift()
            raise
        self._vm.flush()
        for place in places:
            place.hpa = self._laid[place.gpa & PAGE_MASK] + (place.gpa & (PAGE - 1))
            if place.before is not None:
                uctypes.bytearray_at(place.hpa, place.size)[:] = place.before
        self._places += places
        return vcpu.stepper.step(None, RWX, self._done)

    def _find(self, vcpu, operands, answer):
        """The operands' places outside RAM, or with an answer, whose pages have no page standing in for them yet."""
        places = []
        for operand in operands:
            pieces = self._guest.memory.operand(operand.segment, operand.offset, operand.size, operand.access)
            at = 0
            for gpa, size in pieces:
                answered = answer if gpa >> 12 == vcpu.gpa >> 12 else None
                if (answered is not None or not self._vm.memory.has(gpa)) and gpa & PAGE_MASK not in self._laid:
                    places.append(_Place(operand, at, gpa, size, answered))
                at += size
        return places

    def _read(self, place):
        kind = place.operand.kind
        if kind in (READ, UPDATE):
            place.before = place.answer
            if place.before is None:
                place.before = self._vm.mmio_bus.read_bytes(place.gpa, place.size, place.operand.unit)

    def _lay(self, page):
        """Let a page of the monitor's stand in for the one at gpa `page`."""
        hpa = self._free.pop()
        rights = R | W
        if self._vm.memory.has(page):
            uctypes.bytearray_at(hpa, PAGE)[:] = self._vm.memory.view(page, PAGE)
            rights = RWX
        else:
            cpu.zero(hpa, PAGE)
        self._laid[page] = hpa
        self._undo.append(self._vm.ept.lay(page, hpa, rights))

    def _lift(self):
        while self._undo:
            self._vm.ept.lift(self._undo.pop())
        self._free += self._laid.values()
        self._laid = {}
        self._places = []
        self._vm.flush()

    def _done(self, completed):
        """The step is over: write what was written to the devices. Returns a verdict."""
        writes = []
        if completed:
            for place in self._places:
                if place.operand.kind in (UPDATE, STORE):
                    data = place.answer or bytearray(uctypes.bytearray_at(place.hpa, place.size))
                    writes.append((place, data))
        self._lift()
        for place, data in writes:
            i = 1 - place.at
            if self._operands.opcode == PUSHF and place.answer is None and 0 <= i < place.size:
                data[i] = data[i] & ~(_TF_IF >> 8) | (self._guest.vcpu.rflags & _TF_IF) >> 8  # not those of the step
            self._write(place.gpa, data, place.operand)
        return self._vm.ports.outcome & ~verdict.ADVANCE

    def _write(self, gpa, data, operand):
        bus = self._vm.mmio_bus
        size = len(data)
        unit = operand.unit
        if self._vm.memory.has(gpa, size):
            self._vm.memory.write(gpa, data)
        elif operand.down and not size % unit:
            for at in range(size - unit, -1, -unit):
                bus.write_bytes(gpa + at, data[at : at + unit], unit)
        else:
            bus.write_bytes(gpa, data, unit)

    # -- SS

    def _loads_ss(self):
        return self._operands.opcode == POP_SS or (self._operands.opcode == MOV_SREG and self._operands.reg == SS)

    def _load_ss(self, vcpu, operand, answer):
        memory = self._guest.memory
        pieces = memory.operand(operand.segment, operand.offset, operand.size, 0)
        selector = answer if answer is not None else memory.get(pieces)
        width = self._guest.stack_size
        load_ss(vcpu, memory, selector & 0xFFFF)
        if self._operands.opcode == POP_SS:
            self._guest.emulator.put(RSP, width, self._guest.reg(RSP) + operand.size)
        self._guest.finish(vcpu, self._guest.instruction.length)
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_MOV_SS)
        return self._vm.ports.outcome & ~verdict.ADVANCE


def load_ss(vcpu, memory, selector):
    """Load SS with `selector` as MOV SS does; Fault where the CPU refuses. memory: vmm.memory.linear.Linear, loaded."""
    if not vcpu.cr0 & CR0_PE:
        _, _, limit, rights = vcpu.segment("ss")
        vcpu.set_segment("ss", selector, selector << 4, limit, rights)
        return
    if vcpu.rflags & RFLAGS_VM:
        vcpu.set_segment("ss", selector, selector << 4, 0xFFFF, V8086)
        return
    cpl = vcpu.cpl
    rpl = selector & 3
    if not selector & 0xFFFC:
        if vcpu.bits != 64 or cpl == 3 or rpl != cpl:
            raise Fault(fault.GP)
        vcpu.set_segment("ss", selector, 0, 0, RIGHTS_UNUSABLE | cpl << RIGHTS_DPL_SHIFT)
        return
    error = selector & 0xFFFC
    found = segments.find(vcpu, memory, selector)
    if found is None or rpl != cpl or found.system or found.dpl != cpl:
        raise Fault(fault.GP, error)
    if found.type & (RIGHTS_CODE | RIGHTS_WRITABLE) != RIGHTS_WRITABLE:
        raise Fault(fault.GP, error)
    if not found.present:
        raise Fault(fault.SS, error)
    found.mark(memory, RIGHTS_ACCESSED)
    vcpu.set_segment("ss", selector, found.base, found.limit, found.rights)
