"""IN, OUT, INS and OUTS."""

import micropython

from vmm import verdict
from vmm.handlers import io
from vmm.policies.event import Instruction
from vmm.policies.filters import Number, OneOf
from vmm.policies.link import equal
from vmm.vtx import reasons
from vmm.vtx.frame import QUALIFICATION, RAX
from vmm.vtx.vmcs_bits import IO_IN, IO_PORT, IO_PORT_SHIFT, IO_SIZE, IO_STRING


@micropython.viper
def _quick(vcpu, numbers: int, handler) -> int:
    n = ptr32(numbers)
    f = ptr32(vcpu)
    q = int(f[QUALIFICATION])
    if n[0] != 1 or q & IO_STRING:
        return -1
    if q & IO_IN:
        q &= IO_SIZE
        if q == 0:
            f[RAX] = (f[RAX] & 0xFFFFFF00) | (n[2] & 0xFF)
        elif q == 1:
            f[RAX] = (f[RAX] & 0xFFFF0000) | (n[2] & 0xFFFF)
        else:
            f[RAX] = n[2]
            f[RAX + 1] = 0
        return 1
    before = int(f[RAX])
    f[RAX] = n[2]
    done = int(handler(vcpu))
    f[RAX] = before  # OUT changes no register; no handler reads above EAX
    return done


class Io(Instruction):
    name = "io"
    text = (
        "an access to a port. Value(number) is what IN reads, or what OUT writes instead. "
        'SDM Vol. 3C, "Exit Qualification for I/O Instructions"'
    )
    reasons = (reasons.IO_INSTRUCTION,)
    filters = (
        Number("port", 0xFFFF, "the instruction's port"),
        OneOf("write", (True, False), "OUT and OUTS, or IN and INS"),
        OneOf("size", (1, 2, 4), "bytes"),
    )

    quick = staticmethod(_quick)

    def keys(self, chosen):
        if "port" not in chosen:
            return None
        directions = (IO_IN, 0) if "write" not in chosen else (0,) if chosen["write"] else (IO_IN,)
        sizes = (chosen["size"],) if "size" in chosen else (1, 2, 4)
        port = chosen["port"] << IO_PORT_SHIFT
        return [port | string | way | size - 1 for string in (0, IO_STRING) for way in directions for size in sizes]

    def tests(self, chosen):
        mask = value = 0
        if "port" in chosen:
            mask, value = IO_PORT, chosen["port"] << IO_PORT_SHIFT
        if "write" in chosen:
            mask, value = mask | IO_IN, value | (0 if chosen["write"] else IO_IN)
        if "size" in chosen:
            mask, value = mask | IO_SIZE, value | chosen["size"] - 1
        return [equal(QUALIFICATION, mask, value)] if mask else []

    def narrower(self, chosen):
        return []

    def value(self, vcpu, value, handler):
        self.number(value)
        q = io.IoQualification(vcpu.qualification)
        if q.STRING:
            raise ValueError("no value for INS and OUTS: change the guest's registers or memory")
        if q.IN:
            io.put(vcpu, q.SIZE + 1, value & (1 << 8 * (q.SIZE + 1)) - 1)
            return verdict.ADVANCE
        rax = vcpu.rax
        vcpu.rax = value
        try:
            return handler(vcpu)
        finally:
            vcpu.rax = rax


IO = Io()
