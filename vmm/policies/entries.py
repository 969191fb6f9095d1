"""SYSCALL as an exit: the event SYSCALL, of any guest in 64-bit mode.

While policies watch, the CPU's IA32_LSTAR is an address at which no system maps anything, and the guest's own value is
in the frame. SYSCALL is then executed by the CPU, and the fetch at that address is a page fault, of which only those of
the kernel's fetches exit. RIP becomes the guest's own entry point, and the policies are asked before its first
instruction. The guest reads and writes its own value, and its memory is untouched.

Limit: a guest that maps the last page of its address space for execution is not watched (Entries.check). Source: SDM
Vol. 2B, "SYSCALL", "SYSRET"; Vol. 3C, "Exception Bitmap".
"""

import micropython
from micropython import const
from vmx import bind, vmwrite

from vmm.fault import PF
from vmm.memory import look
from vmm.memory.paging import USER
from vmm.policies import link
from vmm.vtx.frame import DIRTY, DIRTY_RFLAGS, DIRTY_RIP, INTR_ERROR, INTR_INFO, LSTAR, R11, RAX, RCX, RFLAGS, RIP
from vmm.vtx.reasons import EXCEPTION_OR_NMI
from vmm.vtx.vmcs import (
    GUEST_CS_ACCESS_RIGHTS,
    GUEST_CS_SELECTOR,
    GUEST_SS_ACCESS_RIGHTS,
    GUEST_SS_SELECTOR,
)
from vmm.vtx.x86 import CR0_PG, IA32_LSTAR, IA32_STAR, MASK64, RFLAGS_FIXED

ADDRESS = const(0xFFFFFFFFFFFFF000)
_LOW = const(0xFFFFF000)
_HIGH = const(0xFFFFFFFF)
_FLAGS = const(0x3C7FD7)  # those that SYSRET loads
_USER_CODE = const(0xA0FB)
_USER_DATA = const(0xC0F3)


class Entries:
    """The SYSCALLs of one guest, vm.entries: the Chain (vmm/policies/chain.py) of policies on SYSCALL."""

    def __init__(self, vm):
        self.vm = vm
        self.policies = ()
        self.returns = bind(leave, vmwrite)  # returns(vcpu, back) -> verdict
        self._handler = None
        self._head = lambda below: bind(entered, self._handler, below)
        self._kept = None

    def check(self):
        """ValueError where the address is mapped."""
        for vcpu in self.vm.vcpus:
            if not vcpu.cr0 & CR0_PG:
                continue
            try:
                look.translate(vcpu, ADDRESS)
            except ValueError:
                continue
            raise ValueError("guest %s maps the page at %#x: its SYSCALLs cannot be watched" % (self.vm.name, ADDRESS))

    def add(self, policy):
        """Add a policy, which is asked after the others; the first one changes IA32_LSTAR."""
        self._change(self.policies + (policy,))
        if len(self.policies) == 1:
            self._watch()

    def remove(self, policy):
        """Remove a policy, if it is there; the last one restores IA32_LSTAR."""
        if policy not in self.policies:
            return
        policies = tuple([other for other in self.policies if other is not policy])
        if not policies:
            self._unwatch()
        self._change(policies)

    def _change(self, policies):
        self.policies = policies
        exits = self.vm.exits
        exits.head(EXCEPTION_OR_NMI, self._head, False)
        if policies:
            self._handler = link.before(policies, False, onward)
            exits.head(EXCEPTION_OR_NMI, self._head)

    def _watch(self):
        msrs = self.vm.msrs
        self._kept = msrs.readers[IA32_LSTAR], msrs.writers[IA32_LSTAR], msrs.halves.pop(IA32_LSTAR)
        for vcpu in self.vm.vcpus:
            self._write(vcpu, IA32_LSTAR, vcpu.msr(IA32_LSTAR))
        msrs.readers[IA32_LSTAR] = self._read
        msrs.writers[IA32_LSTAR] = self._write

    def _unwatch(self):
        msrs = self.vm.msrs
        reader, writer, half = self._kept
        for vcpu in self.vm.vcpus:
            vcpu.msr(IA32_LSTAR, self._read(vcpu, IA32_LSTAR))
            if vcpu.rip == ADDRESS:
                vcpu.rip = vcpu.msr(IA32_LSTAR)
        msrs.readers[IA32_LSTAR], msrs.writers[IA32_LSTAR], msrs.halves[IA32_LSTAR] = reader, writer, half

    def _read(self, vcpu, index):
        """The guest's own value: the frame's, or the CPU's where a start or INIT of the vCPU has set that."""
        value = vcpu.msr(IA32_LSTAR)
        return _own(vcpu) & MASK64 if value == ADDRESS else value

    def _write(self, vcpu, index, value):
        if value >> 47 not in (0, 0x1FFFF):
            return False
        _keep(vcpu, value)
        vcpu.msr(IA32_LSTAR, ADDRESS if value else 0)
        return True


@micropython.viper
def _own(vcpu) -> uint:
    f = ptr32(vcpu)
    return uint(f[LSTAR]) | uint(f[LSTAR + 1]) << uint(32)


@micropython.viper
def _keep(vcpu, value: int):
    f = ptr32(vcpu)
    f[LSTAR] = value
    f[LSTAR + 1] = value >> 32


@micropython.viper
def entered(handler, below, vcpu) -> int:
    """The handler of exceptions while SYSCALL is watched."""
    f = ptr32(vcpu)
    if int(f[RIP]) != _LOW or int(f[RIP + 1]) != _HIGH or int(f[INTR_INFO]) & 0xFF != PF or f[INTR_ERROR] & USER:
        return int(below(vcpu))
    f[RIP] = f[LSTAR]
    f[RIP + 1] = f[LSTAR + 1]
    f[DIRTY] |= DIRTY_RIP
    return int(handler(vcpu))


@micropython.viper
def onward(vcpu) -> int:
    """The default: the guest goes on at its entry point, where RIP is already."""
    return 0


@micropython.viper
def leave(write, vcpu, back: int) -> int:
    """Return from the entry point to the program as SYSRET does, to `back` bytes before the end of SYSCALL."""
    f = ptr32(vcpu)
    selector = int(vcpu.msr(IA32_STAR)) >> 48 & 0xFFFF
    write(vcpu, GUEST_CS_SELECTOR, selector + 16 | 3)
    write(vcpu, GUEST_CS_ACCESS_RIGHTS, _USER_CODE)
    write(vcpu, GUEST_SS_SELECTOR, selector + 8 | 3)
    write(vcpu, GUEST_SS_ACCESS_RIGHTS, _USER_DATA)
    rip = (int(f[RCX]) | int(f[RCX + 1]) << 32) - back
    f[RIP] = rip
    f[RIP + 1] = rip >> 32
    f[RFLAGS] = int(f[R11]) & _FLAGS | RFLAGS_FIXED
    f[RFLAGS + 1] = 0
    f[DIRTY] |= DIRTY_RIP | DIRTY_RFLAGS
    return 0


@micropython.viper
def answer(write, vcpu, numbers: int, handler) -> int:
    """Event.quick: the program finds the number in RAX, and the kernel is not called."""
    n = ptr32(numbers)
    f = ptr32(vcpu)
    if n[0] != 1:
        return -1
    f[RAX] = n[2]
    f[RAX + 1] = n[3]
    return int(leave(write, vcpu, 0))


@micropython.viper
def skip(write, vcpu) -> int:
    """Event.quick_skip: the same, with RAX as the policy has left it."""
    return int(leave(write, vcpu, 0))
