"""What a console shows again when it comes to the front: nothing that a terminal answers."""

import pytest
from pcanel.replay import harmless

QUERIES = {
    "status": b"\x1b[5n",
    "where the cursor is": b"\x1b[6n",
    "the same, DEC": b"\x1b[?6n",
    "what it is": b"\x1b[c",
    "what it is, at length": b"\x1b[0c",
    "its version": b"\x1b[>c",
    "its number": b"\x1b[=c",
    "its name and version": b"\x1b[>q",
    "VT52": b"\x1bZ",
    "answerback": b"\x05",
    "a mode": b"\x1b[?2026$p",
    "parameters": b"\x1b[x",
    "its size": b"\x1b[18t",
    "a checksum": b"\x1b[1;1;1;1;1;1*y",
    "a locator": b"\x1b[1'z",
    "graphics": b"\x1b[?1;1;0S",
    "modifiers": b"\x1b[?4m",
    "the keyboard": b"\x1b[?u",
    "a mode that is reported at once": b"\x1b[?2048h",
    "one among harmless modes": b"\x1b[?25;1004h",
    "a colour": b"\x1b]11;?\x07",
    "a colour, up to ST": b"\x1b]10;?\x1b\\",
    "the clipboard": b"\x1b]52;c;?\x07",
    "a setting": b"\x1bP$qm\x1b\\",
    "a capability": b"\x1bP+q544e\x1b\\",
    "kitty": b"\x1b_Gi=31,a=q;AAAA\x1b\\",
    "the cursor, by C1": b"\xc2\x9b6n",
    "a colour, by C1": b"\xc2\x9d10;?\xc2\x9c",
    "C0 in it": b"\x1b[\x006\x01n",
    "begun twice": b"\x1b\x1b[6n",
    "one that ends another": b"\x1b]0;title\x1b[6n",
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_query_is_left_out(query):
    assert harmless(b"a" + query + b"z") == b"az"


def test_what_is_shown_stays():
    text = "äöü €\t\x08\r\n".encode()
    for shown in (text, b"\x1b[1;31mred\x1b[m", b"\x1b[2J\x1b[H", b"\x1b[10;20H\x1b[K", b"\x1b[?25l\x1b[?1049h",
                  b"\x1b7\x1b8", b"\x1b[3;20r", b"\x1b(0q\x1b(B"):  # fmt: skip
        assert harmless(shown) == shown


def test_a_line_feed_inside_a_query_stays():
    assert harmless(b"a\x1b[6\nnz") == b"a\nz"


@pytest.mark.parametrize("end", [b"\x1b", b"\x1b[", b"\x1b[6", b"\x1b]10;?", b"\xc2"])
def test_a_query_that_is_cut_off_is_none(end):
    """Its rest, which comes later, is not made one by what stands here."""
    left = harmless(b"a" + end)
    assert left.startswith(b"a") and b"\x1b" not in left and b"\x9b" not in left
