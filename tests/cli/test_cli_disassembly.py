"""Listings of code on their way to the terminal: capstone's text in place of the monitor's, whatever the pieces."""

import pytest
from pcanel.disassembly import Disassembly

LISTING = (
    b">>> vm.disassemble()\r\n"
    b"do_sys_openat2:\r\n"
    b"=> 0xffffffff81355c40 64: 55                             push\r\n"
    b"   0xffffffff81355c41 64: e8 ba 00 00 00                 call 0xffffffff81355d00 getname\r\n"
    b"   0xffffffff81355c46 64: 48 8b 05 10 00 00 00           mov\r\n"
    b"     0x0000000000100018 64: 48 89 08                       mov\r\n"
    b"   0x0000000000007c00 16: e8 0d 00                       call 0x7c10\r\n"
    b">>> 0x10\r\n16\r\n>>> "
)
SHOWN = [
    ">>> vm.disassemble()",
    "do_sys_openat2:",
    "=> 0xffffffff81355c40 64: 55                             push rbp",
    "   0xffffffff81355c41 64: e8 ba 00 00 00                 call 0xffffffff81355d00 getname",
    "   0xffffffff81355c46 64: 48 8b 05 10 00 00 00           mov rax, qword ptr [rip + 0x10]  # 0xffffffff81355c5d",
    "     0x0000000000100018 64: 48 89 08                       mov qword ptr [rax], rcx",
    "   0x0000000000007c00 16: e8 0d 00                       call 0x7c10",
    ">>> 0x10",
    "16",
    ">>> ",
]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_listing_in_pieces(size):
    listing = Disassembly()
    shown = b"".join(listing.feed(LISTING[at : at + size]) for at in range(0, len(LISTING), size))
    assert (shown + listing.flush()).decode().split("\r\n") == SHOWN


def test_other_output_is_not_held_back():
    listing = Disassembly()
    assert listing.feed(b"login: ") == b"login: "
    assert listing.feed(b"\r\n") == b"\r\n"
    assert listing.feed(b"=> 0x00000000001") == b""
    assert listing.flush() == b"=> 0x00000000001"
    assert listing.feed(b"0x" + b"1" * 500) == b"0x" + b"1" * 500
    bad = b"   0x0000000000100018 64: ff ff                          ?\r\n"
    assert listing.feed(bad) == bad
