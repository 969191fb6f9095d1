"""One instruction under a hidden breakpoint, with the page itself in place of its copy: the fast step, in viper.

The page's entry in EPT, the monitor trap flag and a dispatch table are set, and restored at the next exit, whatever it
is; so no other vCPU ever finds the page open, and nothing has to be held. An exit other than the trap goes to its own
handler; the instruction is then still to be executed when the CPU reaches the breakpoint again (past.py). An EPT
violation of the instruction goes on with the slow step (vmm/policies/stepper.py), which keeps the page open.

An instruction that could fault is stepped with all exceptions exiting: the trap would follow the delivery. Virtual
interrupts are held by blocking by STI, as in vmm/policies/monitortrap.py. Source: SDM Vol. 3C, "Monitor Trap Flag".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind, invept, vmread, vmwrite

from vmm import verdict
from vmm.debug.past import CAREFUL, ENTRY, PAGE_ITSELF, REPEATS, STACK, begin
from vmm.memory.ept import X
from vmm.vtx import reasons
from vmm.vtx.frame import CONTROLS, DIRTY, DIRTY_CONTROLS, DIRTY_RFLAGS, INTERRUPTIBILITY, RFLAGS, RIP, RSP
from vmm.vtx.vmcs import (
    EXCEPTION_BITMAP,
    GUEST_INTERRUPTIBILITY_STATE,
    PAGE_FAULT_ERROR_CODE_MASK,
    PAGE_FAULT_ERROR_CODE_MATCH,
)
from vmm.vtx.vmcs_bits import BLOCKING_BY_STI, BLOCKING_BY_STI_MOV_SS, CONTROL_MONITOR_TRAP_FLAG, INVEPT_SINGLE_CONTEXT
from vmm.vtx.x86 import RFLAGS_IF, RFLAGS_RF, RFLAGS_TF

# Words of the step:
_ARMED = const(0)
_APICV = const(1)  # 1: the CPU delivers interrupts by itself
_BLOCKS = const(2)  # 1: blocking by STI was set
_CAUGHT = const(3)  # 1: all exceptions exit
_EXCEPTIONS = const(4)  # the exception bitmap without the step
_EPTP = const(6)  # two words each
_ENTRY = const(8)  # hpa of the page's entry
_CLOSED = const(10)  # the entry without the step
_PLACE = const(12)  # address of the words of past.py
_RIP = const(14)
_FAULTS = const(16)  # mask and match of page faults' error codes without the step
_WORDS = const(18)

_LOW = const(0xFFF ^ 7)  # bits of an entry's low half below the address, without the rights
_HIGH = const(0xFFF00000)  # bits of its high half above the address


class QuickStep:
    """The fast step of one guest: one vCPU at a time."""

    def __init__(self, vm):
        self.vm = vm
        self._places = {}  # address of its words: vmm.debug.past.Past
        self._words = array("I", [0] * _WORDS)
        self._address = uctypes.addressof(self._words)
        self._words[_APICV] = int(bool(vm.vcpus[0].apicv))
        self._words[_EPTP] = vm.ept.eptp & 0xFFFFFFFF
        self._words[_EPTP + 1] = vm.ept.eptp >> 32
        self._table = [None] * len(vm.exits.tables[0])
        self.fill()

    def fill(self):
        """The handlers of a step's exits, as Exits.conceal() has them."""
        exits, table = self.vm.exits, self._table
        other = exits.concealed(self._exit)
        for slot in range(len(table)):
            table[slot] = other
        table[reasons.MONITOR_TRAP_FLAG] = exits.concealed(bind(_ended, self._address, invept, vmwrite, exits.tables))
        for slot in (reasons.PENDING, reasons.ATTENTION, reasons.COMPLETED, reasons.WRITTEN):
            table[slot] = bind(self._slot, slot)

    def of(self, place):
        """Return the handler that steps the instruction of a vmm.debug.past.Past."""
        self._places[place.address] = place
        return bind(_begin, self._address, self._table, invept, vmread, vmwrite, place.address, place.step)

    def forget(self, place):
        """Step this place no more: its breakpoint is removed."""
        self.abandon()
        self._places.pop(place.address, None)

    def close(self, vcpu):
        """End the step before its instruction has ended; returns the instruction's slot (past.py)."""
        if self._words[_ARMED]:
            place = self._place()
            _ended(self._address, invept, vmwrite, self.vm.exits.tables, vcpu)
            if self._words[_BLOCKS]:
                state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
                vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state & ~BLOCKING_BY_STI)
            return begin(place.address, vcpu)
        return 0

    def _place(self):
        return self._places[self._words[_PLACE] | self._words[_PLACE + 1] << 32]

    def abandon(self):
        """close() the step of whichever vCPU is in one: the guest starts anew, or a breakpoint is removed."""
        for vcpu in self.vm.vcpus:
            if self._words[_ARMED] and self._words[_ARMED] == vcpu.number + 1:
                self.close(vcpu)

    def _slot(self, slot, vcpu):
        """Handler of the slots that are called before an entry: it ends the step."""
        self.close(vcpu)
        return self.vm.exits.handler(slot, vcpu)(vcpu)

    def _exit(self, vcpu):
        """Handler of any other exit: it ends the step."""
        words = self._words
        place = self._place()
        rip = words[_RIP] | words[_RIP + 1] << 32
        slot = self.close(vcpu)
        reason = vcpu.reason
        if reason == reasons.EPT_VIOLATION:
            return place.violation(vcpu)
        answer = self.vm.exits.handler(reason, vcpu)(vcpu)
        if answer & verdict.ADVANCE or vcpu.rip != rip:
            place.done(slot)  # the monitor has completed it
        return answer


@micropython.viper
def _begin(words: int, table, invept, vmread, vmwrite, place: int, slow, vcpu) -> int:
    """Step the instruction at RIP; returns a verdict."""
    w = ptr32(words)
    p = ptr32(place)
    f = ptr32(vcpu)
    flags = int(f[RFLAGS])
    blocks = 0
    if w[_APICV] and flags & RFLAGS_IF:
        if flags & RFLAGS_TF:
            return int(slow(vcpu))  # VM entry refuses blocking by STI with TF
        if not f[INTERRUPTIBILITY] & BLOCKING_BY_STI_MOV_SS:
            blocks = 1
    controls = int(f[CONTROLS])
    if controls & CONTROL_MONITOR_TRAP_FLAG or w[_ARMED]:
        return int(slow(vcpu))  # another step, or a policy on STEP, uses the monitor trap flag
    if blocks:
        vmwrite(vcpu, GUEST_INTERRUPTIBILITY_STATE, int(f[INTERRUPTIBILITY]) | BLOCKING_BY_STI)
    w[_BLOCKS] = blocks
    careful = int(p[CAREFUL])
    if careful == STACK and f[RSP + 1] & 0x80000000:
        careful = 0  # a fault on a kernel's stack ends the guest in any case
    w[_CAUGHT] = 0
    if careful:
        w[_EXCEPTIONS] = int(vmread(vcpu, EXCEPTION_BITMAP))
        vmwrite(vcpu, EXCEPTION_BITMAP, 0xFFFFFFFF)
        mask = int(vmread(vcpu, PAGE_FAULT_ERROR_CODE_MASK))
        w[_FAULTS] = mask
        if mask:
            w[_FAULTS + 1] = int(vmread(vcpu, PAGE_FAULT_ERROR_CODE_MATCH))
            vmwrite(vcpu, PAGE_FAULT_ERROR_CODE_MASK, 0)
            vmwrite(vcpu, PAGE_FAULT_ERROR_CODE_MATCH, 0)
        w[_CAUGHT] = 1
    w[_PLACE] = place
    w[_PLACE + 1] = place >> 32
    w[_RIP] = f[RIP]
    w[_RIP + 1] = f[RIP + 1]
    entry = int(p[ENTRY]) | int(p[ENTRY + 1]) << 32
    w[_ENTRY] = entry
    w[_ENTRY + 1] = entry >> 32
    e = ptr32(entry)
    low = int(e[0])
    high = int(e[1])
    w[_CLOSED] = low
    w[_CLOSED + 1] = high
    e[0] = low & _LOW | int(p[PAGE_ITSELF]) | X
    e[1] = high & _HIGH | int(p[PAGE_ITSELF + 1])
    f[CONTROLS] = controls | CONTROL_MONITOR_TRAP_FLAG
    f[RFLAGS] = flags | RFLAGS_RF
    f[DIRTY] |= DIRTY_CONTROLS | DIRTY_RFLAGS
    w[_ARMED] = int(vcpu.number) + 1
    invept(INVEPT_SINGLE_CONTEXT, int(w[_EPTP]) | int(w[_EPTP + 1]) << 32)
    vcpu.use(table)
    return 0


@micropython.viper
def _ended(words: int, invept, vmwrite, tables, vcpu) -> int:
    """Handler of the trap after the instruction: undo _begin()."""
    w = ptr32(words)
    f = ptr32(vcpu)
    e = ptr32(int(w[_ENTRY]) | int(w[_ENTRY + 1]) << 32)
    e[0] = w[_CLOSED]
    e[1] = w[_CLOSED + 1]
    f[CONTROLS] = int(f[CONTROLS]) & (0xFFFFFFFF ^ CONTROL_MONITOR_TRAP_FLAG)
    f[DIRTY] |= DIRTY_CONTROLS
    if w[_CAUGHT]:
        vmwrite(vcpu, EXCEPTION_BITMAP, w[_EXCEPTIONS])
        if w[_FAULTS]:
            vmwrite(vcpu, PAGE_FAULT_ERROR_CODE_MASK, w[_FAULTS])
            vmwrite(vcpu, PAGE_FAULT_ERROR_CODE_MATCH, w[_FAULTS + 1])
    vcpu.use(tables[int(w[_ARMED]) - 1])
    w[_ARMED] = 0
    invept(INVEPT_SINGLE_CONTEXT, int(w[_EPTP]) | int(w[_EPTP + 1]) << 32)
    p = ptr32(int(w[_PLACE]) | int(w[_PLACE + 1]) << 32)
    if p[REPEATS] and w[_RIP] == f[RIP]:
        begin(int(w[_PLACE]) | int(w[_PLACE + 1]) << 32, vcpu)
    return 0
