"""Which instructions transfer control: jumps, calls, loops, returns, software interrupts, system calls and back.

Source: SDM Vol. 2D, "Opcode Map"; Vol. 3B, "Single-Stepping on Branches".
"""

from vmm.emulation.length import PREFIXES, Unknown, length
from vmm.fault import Fault
from vmm.memory.linear import Unbacked

# CALL and JMP near and far, RET, INT n, INT3, INTO, INT1, IRET
_ONE = b"\x9a\xc2\xc3\xca\xcb\xcc\xcd\xce\xcf\xe8\xe9\xea\xeb\xf1"
_TWO = b"\x05\x07\x34\x35"  # SYSCALL, SYSRET, SYSENTER, SYSEXIT


def transfers(code, bits):
    """Whether the instruction at the start of `code` may transfer control. IndexError where `code` ends within it."""
    at = 0
    while code[at] in PREFIXES:
        at += 1
    if bits == 64 and code[at] & 0xF0 == 0x40:
        at += 1
    op = code[at]
    if op == 0x0F:
        return 0x80 <= code[at + 1] <= 0x8F or code[at + 1] in _TWO
    if op == 0xFF:
        return 2 <= code[at + 1] >> 3 & 7 <= 5
    return 0x70 <= op <= 0x7F or 0xE0 <= op <= 0xE3 or op in _ONE


def behind(vcpu):
    """RIP of the instruction that follows the one at RIP, if that one transfers control; else None."""
    cpu = vcpu.vm.mmio.cpu
    try:
        cpu.take(vcpu)
        code = cpu.fetch(vcpu)
        return vcpu.rip + length(code, cpu.bits) if transfers(code, cpu.bits) else None
    except (Fault, Unbacked, Unknown, IndexError):
        return None  # fetching it faults, or it is no instruction
