"""Inside gdb: disassembly in the mode that the CPU is in, 16, 32 or 64 bits.

gdb keeps the 64-bit registers for the whole session and decodes all code as 64-bit; `set architecture i8086` is refused
beside them. The stub's register `mode` says which code is run now; capstone decodes where that is not 64-bit.
"""

import os
import sys

import gdb
from gdb.disassembler import Disassembler, DisassemblerResult, register_disassembler

sys.path.append(os.environ.get("PCANEL_GDB_PATH", ""))
import capstone

_MODES = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32}
_SYNTAX = {"att": capstone.CS_OPT_SYNTAX_ATT, "intel": capstone.CS_OPT_SYNTAX_INTEL}
_LONGEST = 15


class Modes(Disassembler):
    """gdb's own disassembler for 64-bit code, capstone for the rest."""

    def __init__(self):
        super().__init__("pcanel modes")

    def __call__(self, info):
        mode = _MODES.get(_mode())
        if mode is None:
            return None
        decoder = capstone.Cs(capstone.CS_ARCH_X86, mode)
        decoder.syntax = _SYNTAX[gdb.parameter("disassembly-flavor")]
        code = bytes(_bytes(info))
        for found in decoder.disasm(code, info.address, 1):
            return DisassemblerResult(found.size, f"{found.mnemonic}\t{found.op_str}".rstrip())
        return DisassemblerResult(1, f".byte {code[0]:#04x}")


def _mode():
    try:
        return int(gdb.selected_frame().read_register("mode"))
    except (gdb.error, ValueError):
        return 64


def _bytes(info):
    """As many bytes of the longest instruction as can be read. gdb.MemoryError where there is none."""
    for size in range(_LONGEST, 1, -1):
        try:
            return info.read_memory(size)
        except gdb.MemoryError:
            pass
    return info.read_memory(1)


register_disassembler(Modes())
