"""Hardware task switches, all of which exit: the monitor carries them out.

To and from 16-bit and 32-bit TSSs; by CALL, JMP, IRET, and by a task gate in the IDT. Before the exit the CPU has
checked gate and privileges; checks that it may have skipped are made here. Faults before the commit point are delivered
in the old task. Later ones are delivered in the new task, whose selectors are then loaded but not their descriptors.
Limits: no shadow stacks; RIP beyond the new CS limit is left to the CPU's fetch; the busy bit is not set by a locked
access. Source: SDM Vol. 3A, "Task Switching" (its numbered steps, and the table "Exception Conditions Checked During a
Task Switch"); Vol. 3C, "Treatment of Task Switches". Details that both leave open follow Bochs: order of segment loads,
#TS(0) for bad PDPTEs, upper halves of registers from a 16-bit TSS, CPL 3 until SS is loaded.
"""

import struct

from micropython import const

from vmm import verdict
from vmm.emulation.decode import SS
from vmm.fault import DB, DF, GP, MC, NP, TS, Fault
from vmm.fault import SS as STACK_FAULT
from vmm.handlers import control, exception
from vmm.loaders.state import CODE32, GPRS
from vmm.memory.linear import Unbacked
from vmm.memory.paging import WRITE
from vmm.vtx import events, segments
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.segments import BUSY, V8086
from vmm.vtx.tss import Tss16, Tss32
from vmm.vtx.vmcs import GUEST_GDTR_BASE, GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import (
    BLOCKING_BY_NMI,
    BLOCKING_BY_STI_MOV_SS,
    RIGHTS_ACCESSED,
    RIGHTS_CODE,
    RIGHTS_DB,
    RIGHTS_DPL,
    RIGHTS_DPL_SHIFT,
    RIGHTS_EXPAND_DOWN,
    RIGHTS_UNUSABLE,
    RIGHTS_WRITABLE,
)
from vmm.vtx.x86 import CR0_PG, CR0_TS, CR4_PAE, RFLAGS_FIXED, RFLAGS_NT, RFLAGS_RF, RFLAGS_VM

_CALL = const(0)
_IRET = const(1)
_JMP = const(2)
_GATE = const(3)

_RFLAGS_DEFINED = const(0x3F7FD5)
_DR7_LOCAL = const(0x155)  # L0-L3, LE
_DR6_BT = const(1 << 15)
_BY_INSTRUCTION = (events.SOFTWARE_INTERRUPT, events.PRIVILEGED_SOFTWARE_EXCEPTION, events.SOFTWARE_EXCEPTION)
_NO_FAULT_CLASS = (DB, DF, MC)

_GPRS = GPRS[:8]


@register
class TaskSwitchQualification(Reg):
    """SDM Vol. 3C, "Exit Qualification for Task Switches"."""

    SELECTOR = Bits(15, 0)
    SOURCE = Bits(31, 30)


def exit(vcpu):
    """Handler of task switches: by the exit qualification and the IDT-vectoring information."""
    q = TaskSwitchQualification(vcpu.qualification)
    switch = Switch(vcpu, q.SELECTOR, q.SOURCE)
    try:
        trap = switch.run()
    except Fault as fault:
        events.requeue(vcpu)  # the event in delivery: with it the fault may become a double fault
        answer = events.deliver(vcpu, fault)
    except Unbacked as error:
        vcpu.vm.report(vcpu, "task switch to %#06x: %s" % (q.SELECTOR, error))
        return verdict.STOP
    else:
        answer = verdict.RESUME
        if trap:
            exception.debug_registers(vcpu, _DR6_BT)
            answer = events.inject(vcpu, DB)
    if switch.committed:
        switch.unblock()
    return answer


class Switch:
    """One task switch."""

    def __init__(self, vcpu, selector, source):
        self._vcpu = vcpu
        self._selector = selector
        self._source = source
        event = vcpu.vectoring_info if source == _GATE else 0
        self._event = event
        self._kind = event >> 8 & 7
        # INT1 has an instruction length as INT n has, but sets EXT in error codes.
        self._by_instruction = source != _GATE or self._kind in _BY_INSTRUCTION
        self._ext = 0 if self._by_instruction and self._kind != events.PRIVILEGED_SOFTWARE_EXCEPTION else 1
        self._memory = vcpu.vm.linear.load(vcpu)
        self.committed = False

    def run(self):
        """Carry out the switch; returns the T flag of the new TSS. Raises Fault, Unbacked of vmm.memory.linear."""
        new = self._target()
        self._old = self._vcpu.segment("tr")
        old_tss = Tss32 if self._old[3] & 8 else Tss16
        new_tss = Tss32 if new.rights & 8 else Tss16
        self._probe(new, new_tss, old_tss)
        self._save(old_tss)
        if self._source in (_CALL, _GATE):
            self._memory.write(new.base, struct.pack("<H", self._old[0]))
        task = new_tss(self._memory.read(new.base, new_tss.SIZE))
        if self._source != _IRET:
            new.mark(self._memory, BUSY)
        self.committed = True
        self._load_registers(new, task)
        self._load_segments(task)
        if self._event & events.ERROR_CODE:
            self._push(struct.pack("<I", self._vcpu.vectoring_error & 0xFFFFFFFF)[: new_tss.WORD])
        return task.trap

    # -- before the commit point

    def _fault(self, vector, selector):
        raise Fault(vector, selector & 0xFFFC | self._ext)

    def _target(self):
        """Return the descriptor of the new TSS."""
        selector = self._selector
        refused = TS if self._source == _IRET else GP
        found = None if selector & 4 else segments.find(self._vcpu, self._memory, selector)
        right = (
            (segments.TSS_16_BUSY, segments.TSS_32_BUSY)
            if self._source == _IRET
            else (segments.TSS_16, segments.TSS_32)
        )
        if found is None or not found.system or found.type not in right:
            self._fault(refused, selector)
        if not found.present:
            self._fault(NP, selector)
        if found.limit < (Tss32.SIZE if found.rights & 8 else Tss16.SIZE) - 1:
            self._fault(TS, selector)
        return found

    def _old_descriptor(self):
        """Return the gva of the byte of the old TSS descriptor that holds its busy bit."""
        return self._vcpu.read(GUEST_GDTR_BASE) + (self._old[0] & 0xFFF8) + 5

    def _probe(self, new, new_tss, old_tss):
        """Check every access up to the commit point, so that none faults after others have been made."""
        selector, base, limit, _ = self._old
        if limit < old_tss.END - 1:
            self._fault(TS, selector)
        memory = self._memory
        memory.touch(new.base, new_tss.SIZE, 0)
        memory.touch(base + old_tss.START, old_tss.END - old_tss.START, WRITE)
        if self._source in (_CALL, _GATE):
            memory.touch(new.base, 2, WRITE)
        if self._source in (_JMP, _IRET):
            memory.touch(self._old_descriptor(), 1, WRITE)
        if self._source != _IRET:
            memory.touch(new.gva + 5, 1, WRITE)

    def _save(self, tss):
        """Save the old task's state in its TSS; set busy bit and NT by the source of the switch."""
        vcpu, memory = self._vcpu, self._memory
        eip, flags = vcpu.rip, vcpu.rflags & 0xFFFFFFFF
        if self._by_instruction:
            eip += vcpu.length
        if self._kind == events.HARDWARE_EXCEPTION and self._event & 0xFF not in _NO_FAULT_CLASS:
            flags |= RFLAGS_RF
        if self._source == _IRET:
            flags &= ~RFLAGS_NT
        if self._source in (_JMP, _IRET):
            gva = self._old_descriptor()
            memory.write(gva, bytes((memory.read(gva, 1)[0] & ~BUSY,)))
        base = self._old[1] + tss.START
        size = tss.END - tss.START
        image = bytearray(tss.START) + bytearray(memory.read(base, size))
        gprs = [getattr(vcpu, name) & 0xFFFFFFFF for name in _GPRS]
        tss.save(image, eip & 0xFFFFFFFF, flags, gprs, [vcpu.segment(name)[0] for name in segments.NAMES])
        memory.write(base, bytes(image[tss.START :]))

    # -- the new task

    def _load_registers(self, new, task):
        vcpu = self._vcpu
        vcpu.set_segment("tr", self._selector, new.base, new.limit, new.rights | BUSY)
        vcpu.cr0 |= CR0_TS
        vcpu.dr7 &= ~_DR7_LOCAL
        flags = task.flags & _RFLAGS_DEFINED | RFLAGS_FIXED
        if self._source in (_CALL, _GATE):
            flags |= RFLAGS_NT
        vcpu.rflags = flags
        vcpu.rip = task.eip
        for i in range(8):
            setattr(vcpu, _GPRS[i], task.gprs[i])
        self._load_selectors(task, flags)
        if task.cr3 is not None and vcpu.cr0 & CR0_PG and task.cr3 != vcpu.cr3:
            vcpu.cr3 = task.cr3
            vcpu.vm.flush()
            if vcpu.cr4 & CR4_PAE and not control.load_pdptes(vcpu):
                self._fault(TS, 0)
        self._memory = vcpu.vm.linear.load(vcpu)

    def _load_selectors(self, task, flags):
        """Load the selectors without descriptors, since the load of a descriptor may fault."""
        vcpu = self._vcpu
        vcpu.set_segment("ldtr", task.ldtr, 0, 0, RIGHTS_UNUSABLE)
        for i in range(6):
            name, selector = segments.NAMES[i], task.selectors[i]
            if flags & RFLAGS_VM:
                vcpu.set_segment(name, selector, selector << 4, 0xFFFF, V8086)
            elif name == "cs":
                self._no_code(selector, 3)
            else:  # CPL, which is the DPL of SS, is 3: the fault's delivery loads a stack from the TSS
                vcpu.set_segment(name, selector, 0, 0, RIGHTS_UNUSABLE | RIGHTS_DPL)

    def _no_code(self, selector, cpl):
        """Set a valid CS: VM entry requires one also if a later load faults."""
        self._vcpu.set_segment("cs", selector, 0, 0xFFFFFFFF, CODE32 | cpl << RIGHTS_DPL_SHIFT)

    def _load_segments(self, task):
        self._load_ldtr(task.ldtr)
        if self._vcpu.rflags & RFLAGS_VM:
            return
        es, cs, ss, ds, fs, gs = task.selectors
        cpl = cs & 3
        self._load_ss(ss, cpl)
        self._no_code(cs, cpl)
        for name, selector in (("ds", ds), ("es", es), ("fs", fs), ("gs", gs)):
            self._load_data(name, selector, cpl)
        self._load_cs(cs)

    def _find(self, selector):
        return segments.find(self._vcpu, self._memory, selector) or self._fault(TS, selector)

    def _set(self, name, selector, found):
        if not found.system:
            found.mark(self._memory, RIGHTS_ACCESSED)
        self._vcpu.set_segment(name, selector, found.base, found.limit, found.rights)

    def _load_ldtr(self, selector):
        if selector & 4:
            self._fault(TS, selector)
        if not selector & 0xFFFC:
            return
        found = self._find(selector)
        if not found.system or found.type != segments.LDT or not found.present:
            self._fault(TS, selector)
        self._set("ldtr", selector, found)

    def _load_ss(self, selector, cpl):
        found = self._find(selector)
        if found.system or found.type & (RIGHTS_CODE | RIGHTS_WRITABLE) != RIGHTS_WRITABLE:
            self._fault(TS, selector)
        if not found.present:
            self._fault(STACK_FAULT, selector)
        if found.dpl != cpl or selector & 3 != cpl:
            self._fault(TS, selector)
        self._set("ss", selector, found)

    def _load_data(self, name, selector, cpl):
        if not selector & 0xFFFC:
            return
        found = self._find(selector)
        if found.system or found.type & (RIGHTS_CODE | RIGHTS_WRITABLE) == RIGHTS_CODE:
            self._fault(TS, selector)
        conforming = RIGHTS_CODE | RIGHTS_EXPAND_DOWN
        if found.type & conforming != conforming and found.dpl < max(cpl, selector & 3):
            self._fault(TS, selector)
        if not found.present:
            self._fault(NP, selector)
        self._set(name, selector, found)

    def _load_cs(self, selector):
        found = self._find(selector)
        rpl = selector & 3
        if found.system or not found.type & RIGHTS_CODE:
            self._fault(TS, selector)
        if found.dpl > rpl or (found.dpl != rpl and not found.type & RIGHTS_EXPAND_DOWN):
            self._fault(TS, selector)
        if not found.present:
            self._fault(NP, selector)
        self._set("cs", selector, found)

    def _push(self, data):
        """Push the event's error code on the new task's stack."""
        vcpu = self._vcpu
        memory = self._memory.load(vcpu)  # with the new CPL
        mask = 0xFFFFFFFF if vcpu.segment("ss")[3] & RIGHTS_DB else 0xFFFF
        esp = vcpu.rsp - len(data) & mask
        try:
            gva = memory.address(SS, esp, len(data), True)
        except Fault as fault:
            self._fault(fault.vector, 0)
        memory.write(gva, data, memory.explicit)
        vcpu.rsp = vcpu.rsp & ~mask | esp

    def unblock(self):
        """Clear blocking by STI and MOV SS. Set blocking by NMI if this delivered an NMI, clear it after IRET."""
        vcpu = self._vcpu
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        keep = state & ~BLOCKING_BY_STI_MOV_SS
        if self._source == _IRET:
            keep &= ~BLOCKING_BY_NMI
        elif self._event & events.VALID and self._kind == events.NMI:
            keep |= BLOCKING_BY_NMI
        if keep != state:
            vcpu.write(GUEST_INTERRUPTIBILITY_STATE, keep)
