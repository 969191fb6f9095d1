"""The instruction under a hidden breakpoint: it is executed, and the guest goes on past the breakpoint.

NOP and ENDBR, with which most functions begin, are skipped. Any other instruction is stepped with the page itself in
place of its copy (vmm/debug/quickstep.py). Where the step does not complete it, by a fault or between two iterations of
REP, it is still to be executed when the CPU reaches the breakpoint again with the same stack pointer and address space;
no policy is asked again then. RFLAGS.RF is set for the step: the CPU has checked the guest's own breakpoints on the
instruction when it fetched the INT3. The guest's own INT3 is delivered to it. Source: SDM Vol. 3B, "Instruction-
Breakpoint Exception Condition".
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.emulation import length
from vmm.fault import Fault
from vmm.memory.ept import R, X
from vmm.memory.linear import Unbacked
from vmm.vtx.frame import CR3, CS_RIGHTS, LENGTH, RSP, WRITTEN
from vmm.vtx.vmcs import GUEST_CS_ACCESS_RIGHTS
from vmm.vtx.vmcs_bits import RIGHTS_DB, RIGHTS_L
from vmm.vtx.x86 import INT3, PAGE_MASK, RFLAGS_RF

_MODE = const(RIGHTS_L | RIGHTS_DB)
_KNOWN = const(1)

_LEA = const(0x8D)
_MOV_IMMEDIATE = const(0xB8)
_REGISTERS = b"\x01\x03\x09\x0b\x21\x23\x29\x2b\x31\x33\x39\x3b\x63\x81\x83\x84\x85\x88\x89\x8a\x8b"  # with mod 3
_JUMPS = b"\xe9\xeb\x70\x71\x72\x73\x74\x75\x76\x77\x78\x79\x7a\x7b\x7c\x7d\x7e\x7f"
_STRINGS = b"\x6c\x6d\x6e\x6f\xa4\xa5\xa6\xa7\xaa\xab\xac\xad\xae\xaf"

# Words of a place:
_ALIVE = const(0)
_DECODED = const(1)  # mode that it was decoded in, and _KNOWN
_SKIP = const(2)  # bytes of an instruction without effect; 0: another one
_BEGUN = const(3)  # slots in use: the policies have been asked, and the instruction is still to be executed
_OWN = const(7)  # 1: it is an INT3 of the guest's own
CAREFUL = const(8)  # 0: it cannot fault; STACK: it can on the stack only; 2: it can
REPEATS = const(9)  # 1: it has REP
ENTRY = const(10)  # two words: hpa of the page's entry in EPT
PAGE_ITSELF = const(12)  # two words: hpa of the page
_SLOTS = const(14)  # of instructions that vCPUs and tasks have begun: 1, RSP (two words), CR3
_SLOT = const(4)
_MOST = const(8)
WORDS = const(_SLOTS + _SLOT * _MOST)

STACK = const(1)


class Past:
    """The instruction at one gpa. handler(vcpu) -> verdict executes it; after close() it lets RIP be executed again.

    below: the handler of an INT3 that is the guest's own; None: it is stepped as any other instruction. quick:
    vmm.debug.quickstep.QuickStep; None: the CPU has no monitor trap flag, or the guest's memory may move.
    place(entry, page): as open() says.
    """

    def __init__(self, vm, gpa, below, quick):
        self.vm = vm
        self._gpa = gpa
        self._below = below
        self._quick = quick
        self.words = array("I", [0] * WORDS)
        self.words[_ALIVE] = 1
        self.address = uctypes.addressof(self.words)
        step = self.step if quick is None else quick.of(self)
        self.handler = bind(past, self.address, self._first, step, below)

    def open(self, entry, page):
        """Set up the step of the page that has INT3 now. entry: hpa of its entry in EPT; page: of the page itself."""
        for word, hpa in ((ENTRY, entry), (PAGE_ITSELF, page)):
            self.words[word] = hpa & 0xFFFFFFFF
            self.words[word + 1] = hpa >> 32

    def close(self):
        """Step no more: the breakpoint is removed. Handlers that are still called let RIP be executed again."""
        self.words[_ALIVE] = 0
        if self._quick is not None:
            self._quick.forget(self)

    def changed(self):
        """Let the instruction be decoded anew: it has been written to."""
        self.words[_DECODED] = 0

    def done(self, slot):
        """Note that it has been executed. slot: of begin()."""
        if self.words[slot]:
            self.words[slot] = 0
            self.words[_BEGUN] -= 1

    def step(self, vcpu):
        """Step it the slow way; returns a verdict."""
        rip = vcpu.rip
        vcpu.rflags |= RFLAGS_RF
        slot = begin(self.address, vcpu)
        page = self._gpa & PAGE_MASK
        return vcpu.stepper.step(page, R | X, lambda completed: self._ended(vcpu, rip, slot, completed))

    def violation(self, vcpu):
        """Go on after an EPT violation that it has caused; returns a verdict."""
        self.step(vcpu)
        return vcpu.stepper.violation(vcpu)

    def _ended(self, vcpu, rip, slot, completed):
        if completed and not (self.words[REPEATS] and vcpu.rip == rip):
            self.done(slot)
        return 0

    def _first(self, vcpu):
        """Decode it first: it is not decoded in this mode, or may have been written to since."""
        self.vm.hidden.settle()
        if self._decode(vcpu):
            return self.handler(vcpu)
        return self.step(vcpu)

    def _decode(self, vcpu):
        """Decode it; whether its bytes can be read."""
        words = self.words
        cpu = self.vm.mmio.cpu
        try:
            cpu.take(vcpu)
            code = cpu.fetch(vcpu)
        except (Fault, Unbacked):
            return False
        bits = cpu.bits
        words[_OWN] = self._below is not None and code[0] == INT3
        words[REPEATS] = repeats(code, bits)
        words[CAREFUL] = care(code, bits)
        words[_SKIP] = without_effect(code, bits)
        words[_DECODED] = vcpu.read(GUEST_CS_ACCESS_RIGHTS) & _MODE | _KNOWN
        return True


def _prefixes(code, bits):
    """(bytes of prefixes, REX or 0, whether F2 or F3 is among them)."""
    at = 0
    while at < len(code) and code[at] in length.PREFIXES:
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


def care(code, bits):
    """Whether the instruction can fault: 0: no; STACK: on the stack only; 2: yes.

    The first two for a few instructions of 64-bit code, with which functions begin.
    """
    if bits != 64:
        return 2
    at = 1 if code[0] & 0xF0 == 0x40 else 0
    opcode = code[at]
    if opcode & 0xF8 == 0x50 or (opcode == 0xE8 and not at):
        return STACK
    registers = code[at + 1] >= 0xC0 if at + 1 < len(code) else False
    if opcode in _REGISTERS and registers:
        return 0
    return 0 if opcode == _LEA and not registers or opcode & 0xF8 == _MOV_IMMEDIATE or opcode in _JUMPS else 2


@micropython.viper
def _find(words: int, vcpu) -> int:
    """The slot of the instruction that this stack and address space have begun; 0: none."""
    w = ptr32(words)
    f = ptr32(vcpu)
    at = int(_SLOTS)
    while at < WORDS:
        if w[at] and w[at + 1] == f[RSP] and w[at + 2] == f[RSP + 1] and w[at + 3] == f[CR3]:
            return at
        at += _SLOT
    return 0


@micropython.viper
def begin(words: int, vcpu) -> int:
    """Note that policies have been asked for the instruction at RIP, which is to be executed; returns its slot."""
    w = ptr32(words)
    f = ptr32(vcpu)
    found = int(_find(words, vcpu)) if w[_BEGUN] else 0
    if found:
        return found
    at = int(_SLOTS)
    while at < WORDS - _SLOT and w[at]:
        at += _SLOT
    if w[at] == 0:
        w[_BEGUN] = int(w[_BEGUN]) + 1
    w[at] = 1
    w[at + 1] = f[RSP]
    w[at + 2] = f[RSP + 1]
    w[at + 3] = f[CR3]
    return at


@micropython.viper
def unless_begun(words: int, past, link, vcpu) -> int:
    """Ask policies for the instruction at RIP by `link`; where they have been asked already, execute it by `past`."""
    w = ptr32(words)
    if w[_BEGUN]:
        at = int(_find(words, vcpu))
        if at:
            w[at] = 0
            w[_BEGUN] = int(w[_BEGUN]) - 1
            return int(past(vcpu))
    return int(link(vcpu))


@micropython.viper
def past(words: int, first, step, below, vcpu) -> int:
    """Execute the instruction under the breakpoint at RIP; returns a verdict."""
    w = ptr32(words)
    f = ptr32(vcpu)
    if w[_ALIVE] == 0:
        return 0
    if f[WRITTEN] or int(f[CS_RIGHTS]) & _MODE | _KNOWN != int(w[_DECODED]):
        return int(first(vcpu))
    if w[_SKIP]:
        f[LENGTH] = w[_SKIP]
        f[LENGTH + 1] = 0
        return 1
    if w[_OWN]:
        return int(below(vcpu))
    return int(step(vcpu))
