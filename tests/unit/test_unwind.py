"""ORC as call frame information, read back by pyelftools."""

import io
import struct

from elftools.dwarf.callframe import FDE, CallFrameInfo
from elftools.dwarf.structs import DWARFStructs
from pcanel.kernel import unwind

BASE = 0xFFFFFFFF81000000
SP, BP, BP_INDIRECT, SP_INDIRECT = 5, 4, 8, 9  # of a kernel before 7.1
PREV_SP = 1
CALL, REGS, PARTIAL = 0, 1, 2  # before 6.4
END = 1 << 10


def frames(*entries, thunks=()):
    """{address: (CFA, rules by number of the register)} of [(address, sp_offset, bp_offset, flags)]."""
    places = b"".join(struct.pack("<i", at - BASE - 4 * i) for i, (at, *_) in enumerate(entries))
    table = b"".join(struct.pack("<hhH", *rest) for _, *rest in entries)
    data = unwind.debug_frame([unwind.rows(BASE, places, table, None, thunks)])
    structs = DWARFStructs(little_endian=True, dwarf_format=32, address_size=8)
    found = {}
    for entry in CallFrameInfo(io.BytesIO(data), len(data), 0, structs, for_eh_frame=False).get_entries():
        if isinstance(entry, FDE):
            for row in entry.get_decoded().table:
                rules = {number: rule for number, rule in row.items() if isinstance(number, int)}
                found[row["pc"]] = row["cfa"], rules, entry.cie["augmentation"]
    return found


def test_a_function_that_pushes_rbp():
    found = frames(
        (BASE, 8, 0, SP | CALL << 8), (BASE + 1, 16, -16, SP | PREV_SP << 4),
        (BASE + 0x104, 16, -16, BP | PREV_SP << 4),
        (BASE + 0x20000, 0, 0, END),
    )  # fmt: skip
    assert [(cfa.reg, cfa.offset) for cfa, *_ in list(found.values())[:3]] == [(7, 8), (7, 16), (6, 16)]
    assert list(found)[:3] == [BASE, BASE + 1, BASE + 0x104]
    cfa, rules, augmentation = found[BASE + 1]
    assert (rules[6].type, rules[6].arg) == ("OFFSET", -16) and (rules[16].type, rules[16].arg) == ("OFFSET", -8)
    assert augmentation == b"z" and found[BASE][1][6].type == "SAME_VALUE"
    assert found[BASE + 0x20000][1][16].type == "UNDEFINED"


def test_a_thunk_has_its_caller_on_the_stack():
    entries = (BASE, 8, 0, SP | CALL << 8), (BASE + 0x100, 0, 0, END), (BASE + 0x200, 0, 0, END)
    found = frames(*entries, thunks=[(BASE + 0x100, BASE + 0x140)])
    assert (found[BASE][0].reg, found[BASE][0].offset) == (7, 8)
    assert 16 in found[BASE + 0x200][1] and found[BASE + 0x200][1][16].type == "UNDEFINED"
    assert all(rules[16].type != "UNDEFINED" for at, (_, rules, _) in found.items() if at < BASE + 0x200)


def test_registers_that_an_interrupt_has_pushed():
    found = frames((BASE, 0, 0, SP | REGS << 8), (BASE + 16, 24, 0, SP | PARTIAL << 8))
    cfa, rules, augmentation = found[BASE]
    assert (cfa.reg, cfa.offset, augmentation) == (7, 0, b"zS")
    assert [rules[number].arg for number in (15, 6, 0, 16, 7)] == [0, 32, 80, 128, 152]
    cfa, rules, _ = found[BASE + 16]
    assert cfa.offset == 24 and [rules[number].arg for number in (16, 7)] == [0, 24]


def test_a_stack_that_is_found_by_what_lies_in_memory():
    found = frames((BASE, -8, 0, BP_INDIRECT), (BASE + 4, 8, 0, SP_INDIRECT), (BASE + 8, -24, 0, BP))
    assert [augmentation for *_, augmentation in found.values()] == [b"z", b"zS", b"z"]  # S: another stack
    blocks = [bytes(cfa.expr) for cfa, *_ in found.values()]
    assert blocks == [b"\x76\x78\x06", b"\x77\x00\x06\x23\x08", b"\x76\x68"]


def test_what_makes_no_sense_ends_the_stack_and_does_no_harm():
    found = frames((BASE + 64, 8, 0, SP), (BASE, 8, 0, SP), (BASE + 128, 8, 0, 15))
    assert list(found) == [BASE + 64, BASE + 128] and found[BASE + 128][1][16].type == "UNDEFINED"
    assert frames() == {}
