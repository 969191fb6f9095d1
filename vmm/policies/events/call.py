"""Calls of a function of the guest, and returns from it, by hidden breakpoints (vmm/debug/hidden.py)."""

import micropython
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.memory.look import walk
from vmm.policies.events.breakpoint import Breakpoint
from vmm.policies.events.watch import check_place, pieces_of
from vmm.policies.filters import Number, Place
from vmm.vtx.frame import CR3, CR4, CS_RIGHTS, DIRTY, DIRTY_RIP, DIRTY_RSP, RAX, RIP, RSP
from vmm.vtx.vmcs_bits import RIGHTS_L
from vmm.vtx.x86 import CR4_LA57, MASK64, PAGE

_WORD = const(8)
_AT = Place("at", "the function: its symbol, or its address")
_GPA = Number("gpa", (1 << 52) - 1, "its guest-physical address, in place of at=")
_CR3 = Number("cr3", MASK64, "of the process in whose memory it is; the function is watched for all that share it")


class Call(Breakpoint):
    name = "call"
    text = (
        "a function is entered: RIP is its first instruction, vcpu.args its arguments. Value(number): it returns this "
        'at once; HANDLED: it returns what RAX has. SDM Vol. 3C, "EPT Violations", and a hidden INT3'
    )
    filters = (_AT, _GPA, _CR3)
    tells = True
    repeats = True

    def check(self, chosen):
        super().check(chosen)
        check_place(self, chosen)

    def of(self, vm, chosen):
        pieces, paged = pieces_of(vm, chosen, True)
        return self.at(pieces[0][0], paged)

    def quickly(self, vm):
        return bind(_value, vm.memory.table), self.quick_skip

    def skip(self, vcpu):
        from vmm.debug import abi

        abi.leave(vcpu)
        return verdict.RESUME

    def value(self, vcpu, value, handler):
        put(vcpu, value)
        return self.skip(vcpu)


class Return(Call):
    name = "return"
    text = (
        "a function returns: RIP is behind the call, vcpu.result the value in RAX. Value(number) replaces it; HANDLED: "
        'no other policy is asked. SDM Vol. 3C, "EPT Violations", and a hidden INT3'
    )

    def chains(self, vm):
        return [vm.hidden.returns(self.gpa, self.paged)]

    def quickly(self, vm):
        return _replace, self.quick_skip

    def skip(self, vcpu):
        return vcpu.vm.hidden.returned(vcpu)

    def value(self, vcpu, value, handler):
        put(vcpu, value)
        return handler(vcpu)


def put(vcpu, value):
    """A function's value. ValueError unless it is a number."""
    if not isinstance(value, int):
        raise ValueError("the value of a function is a number, not %r" % (value,))
    vcpu.rax = value & ((1 << vcpu.bits) - 1)


@micropython.viper
def _value(table, vcpu, numbers: int, handler) -> int:
    """Call.value() in 64-bit code. table: of the guest's GuestMemory."""
    n = ptr32(numbers)
    f = ptr32(vcpu)
    if n[0] != 1 or not f[CS_RIGHTS] & RIGHTS_L or f[RSP] & 0xFFF > PAGE - _WORD:
        return -1
    root = (int(f[CR3 + 1]) & 0xFFFFF) << 32 | int(f[CR3]) & 0xFFFFF000
    hpa = int(walk(table, root, 48 if f[CR4] & CR4_LA57 else 39, int(f[RSP]) | int(f[RSP + 1]) << 32, 1))
    if hpa < 0:
        return -1
    w = ptr32(hpa)
    f[RIP] = w[0]
    f[RIP + 1] = w[1]
    rsp = (int(f[RSP]) | int(f[RSP + 1]) << 32) + _WORD
    f[RSP] = rsp
    f[RSP + 1] = rsp >> 32
    f[RAX] = n[2]
    f[RAX + 1] = n[3]
    f[DIRTY] |= DIRTY_RIP | DIRTY_RSP
    return 0


@micropython.viper
def _replace(vcpu, numbers: int, handler) -> int:
    """Return.value()."""
    n = ptr32(numbers)
    f = ptr32(vcpu)
    if n[0] != 1 or not f[CS_RIGHTS] & RIGHTS_L:
        return -1
    f[RAX] = n[2]
    f[RAX + 1] = n[3]
    return int(handler(vcpu))


CALL = Call()
RETURN = Return()
