"""The value of the operand whose access has caused an EPT violation: before the instruction, and after it.

The value after it is computed on a copy of the registers, for the instructions of vmm/emulation/fastops.py (MOV,
arithmetic, logic, exchanges, bit tests, SETcc); it is None for others.
"""

import uctypes
from micropython import const

from vmm.emulation.decode import DecodeError
from vmm.emulation.fastops import encode, operate
from vmm.fault import Fault
from vmm.memory.linear import Unbacked

_FRAME = const(0x110)  # bytes of the frame: registers, flags, dirty bits


def old(vcpu):
    """A number of the operand's size, of 8 bytes where that is not known. ValueError: not in RAM."""
    size = vcpu.vm.mmio.operand_size(vcpu) or 8
    return int.from_bytes(vcpu.vm.memory.read(vcpu.gpa, size), "little")


def new(vcpu):
    """The number that will be written; None where that cannot be told."""
    cpu = vcpu.vm.mmio.cpu
    try:
        cpu.take(vcpu)
        code = cpu.fetch(vcpu)
        instruction = cpu.instruction.decode(code, cpu.bits)
    except (DecodeError, Fault, Unbacked):
        return None
    number, immediate, _ = encode(instruction)
    if not number:
        return None
    written = []
    frame = bytearray(uctypes.bytearray_at(vcpu.frame_hpa, _FRAME))
    memory = vcpu.vm.memory
    gpa = vcpu.gpa
    operate(
        number, immediate,
        lambda offset, size: int.from_bytes(memory.read(gpa, size), "little"),
        lambda offset, size, value: written.append(value),
        gpa & 0xFFF, frame,
    )  # fmt: skip
    return written[-1] if written else None
