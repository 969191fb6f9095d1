"""Past a hidden breakpoint: the instruction that stands under it is executed, and the guest goes on.

NOP and ENDBR, with which most functions begin, are skipped. Any other instruction is stepped with the page itself in
place of its copy (vmm/policies/stepper.py). Where the step does not end it, by a fault or between two turns of REP,
it is still to be done when the CPU comes to the breakpoint again with the same stack pointer and address space;
nobody is asked again then. RFLAGS.RF is set for the step: the guest's own breakpoints on the instruction have been
looked for when the INT3 was fetched. An INT3 of the guest's own is the guest's. Source: SDM Vol. 3B, "Instruction-
Breakpoint Exception Condition".
"""

from array import array

import micropython
import uctypes
from micropython import const

from vmm.debug.face import page_of
from vmm.emulation import length
from vmm.fault import Fault
from vmm.memory.ept import R, X
from vmm.memory.linear import Unbacked
from vmm.vtx.frame import CR3, CS_RIGHTS, LENGTH, RSP
from vmm.vtx.vmcs import GUEST_CS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DB, RIGHTS_L
from vmm.vtx.x86 import RFLAGS_RF

_MODE = const(RIGHTS_L | RIGHTS_DB)
_KNOWN = const(1)
_PREFIXES = b"\x66\x67\x2e\x3e\x26\x36\x64\x65\xf0\xf2\xf3"
_STRINGS = b"\x6c\x6d\x6e\x6f\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf"

# Words of a place:
_ALIVE = const(0)
_DECODED = const(1)  # mode that it was decoded in, and _KNOWN
_SKIP = const(2)  # bytes of an instruction without effect; 0: another one
_BEGUN = const(3)  # 1: the call has been asked, and the instruction is still to be done, where these are the same:
_RSP = const(4)  # two words
_CR3 = const(6)
_WORDS = const(7)


class Past:
    """The instruction at one gpa. past(vcpu) -> verdict executes it; closed, it lets RIP be executed again.

    below: the handler of an INT3 that is the guest's own.
    """

    def __init__(self, vm, gpa, below):
        self.vm = vm
        self._page = page_of(gpa)
        self._below = below
        self._own = False
        self._repeats = False
        self.words = array("I", [0] * _WORDS)
        self.words[_ALIVE] = 1
        self.address = uctypes.addressof(self.words)

    def close(self):
        self.words[_ALIVE] = 0

    def changed(self):
        """The instruction has been written to."""
        self.words[_DECODED] = 0

    def slow(self, vcpu):
        """The rest of past()."""
        if not self.words[_DECODED]:
            self._decode(vcpu)
            if self.words[_SKIP]:
                return past(self.address, self.slow, vcpu)
        if self._own:
            return self._below(vcpu)
        rip = vcpu.rip
        vcpu.rflags |= RFLAGS_RF
        _begin(self.address, vcpu)
        return vcpu.stepper.step(self._page, R | X, lambda completed: self._ended(vcpu, rip, completed))

    def _ended(self, vcpu, rip, completed):
        if completed and not (self._repeats and vcpu.rip == rip):
            self.words[_BEGUN] = 0
        return 0

    def _decode(self, vcpu):
        words = self.words
        cpu = self.vm.mmio.cpu
        words[_SKIP] = 0
        self._own = self._repeats = False
        try:
            cpu.take(vcpu)
            code = cpu.fetch(vcpu)
        except (Fault, Unbacked):
            return
        self._own = code[0] == 0xCC
        self._repeats = repeats(code, cpu.bits)
        words[_SKIP] = without_effect(code, cpu.bits)
        words[_DECODED] = vcpu.read(GUEST_CS_ACCESS_RIGHTS) & _MODE | _KNOWN


def _prefixes(code, bits):
    """(bytes of prefixes, REX or 0, whether F2 or F3 is among them)."""
    at = 0
    while at < len(code) and code[at] in _PREFIXES:
        at += 1
    repeat = b"\xf3" in code[:at] or b"\xf2" in code[:at]
    rex = code[at] if bits == 64 and at < len(code) and code[at] & 0xF0 == 0x40 else 0
    return at + bool(rex), rex, repeat


def without_effect(code, bits):
    """Bytes of the NOP or ENDBR that `code` begins with; 0 where it is another instruction."""
    at, rex, repeat = _prefixes(code, bits)
    if b"\xf0" in code[:at]:
        return 0
    if code[at : at + 1] == b"\x90" and not repeat and not rex & 1:
        return at + 1
    opcode = code[at : at + 2]
    if opcode == b"\x0f\x1f" or (opcode == b"\x0f\x1e" and repeat and code[at + 2 : at + 3] in (b"\xfa", b"\xfb")):
        try:
            return length.length(code, bits)
        except length.Unknown:
            return 0
    return 0


def repeats(code, bits):
    """Whether `code` begins with a string instruction with REP."""
    at, _, repeat = _prefixes(code, bits)
    return repeat and code[at : at + 1] in [_STRINGS[i : i + 1] for i in range(len(_STRINGS))]


@micropython.viper
def _begin(words: int, vcpu):
    w = ptr32(words)
    f = ptr32(vcpu)
    w[_RSP] = f[RSP]
    w[_RSP + 1] = f[RSP + 1]
    w[_CR3] = f[CR3]
    w[_BEGUN] = 1


@micropython.viper
def unless_begun(words: int, past, link, vcpu) -> int:
    """Ask for the instruction at RIP, or go past where that has been done."""
    w = ptr32(words)
    if w[_BEGUN]:
        f = ptr32(vcpu)
        if w[_RSP] == f[RSP] and w[_RSP + 1] == f[RSP + 1] and w[_CR3] == f[CR3]:
            w[_BEGUN] = 0
            return int(past(vcpu))
    return int(link(vcpu))


@micropython.viper
def past(words: int, slow, vcpu) -> int:
    """Past the breakpoint at RIP; returns a verdict."""
    w = ptr32(words)
    f = ptr32(vcpu)
    if w[_ALIVE] == 0:
        return 0
    if int(f[CS_RIGHTS]) & _MODE | _KNOWN == int(w[_DECODED]):
        if w[_SKIP]:
            f[LENGTH] = w[_SKIP]
            f[LENGTH + 1] = 0
            return 1
    return int(slow(vcpu))
