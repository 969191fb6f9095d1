"""Packets of gdb's protocol: framing, checksums, escapes, numbers; what is broken is refused."""

import pytest

from vmm.debug.gdb import packets as p


def reader(*pieces):
    made = p.Reader()
    for piece in pieces:
        room = made.room()
        room[: len(piece)] = piece
        made.take(len(piece))
    return made


def test_a_packet_is_framed_and_read_back():
    for data in (b"", b"g", bytes(range(256)).replace(b"#", b"").replace(b"$", b"")):
        assert reader(p.frame(data)).next() == data


def test_binary_data_is_escaped():
    data = bytes(range(256)) + b"}}##$$**"
    sent = p.escape(data)
    assert not any(byte in sent for byte in b"#$*")
    assert p.unescape(sent) == data
    with pytest.raises(p.BadPacket):
        p.unescape(b"abc}")


def test_packets_come_in_pieces_with_acks_and_breaks_between():
    made = reader(b"+$ab", b"c#2", b"6\x03-$g#67$")
    assert [made.next() for _ in range(6)] == [b"+", b"abc", b"\x03", b"-", b"g", None]


def test_noise_and_a_packet_that_was_not_ended_are_passed_over():
    assert reader(b"noise$half of one$g#67").next() == b"g"
    assert reader(b"noise").next() is None


def test_a_wrong_checksum_is_refused_unless_there_are_no_acknowledgements():
    made = reader(b"$g#68$g#67")
    with pytest.raises(p.BadPacket, match="wrong checksum"):
        made.next()
    assert made.next() == b"g"
    made = reader(b"$g#00")
    made.acks = False
    assert made.next() == b"g"


def test_a_packet_without_end_is_bounded():
    made = p.Reader()
    with pytest.raises(p.BadPacket, match="more than"):
        for _ in range(3):
            room = made.room()
            room[:] = b"$" + b"a" * (len(room) - 1)
            made.take(len(room))
            assert made.next() is None
    room = made.room()
    room[:5] = b"$g#67"
    made.take(5)
    assert made.next() == b"g"


def test_numbers():
    assert p.numbers(b"ffffffff80000000,1F") == [0xFFFFFFFF80000000, 0x1F]
    for text in (b"", b"1" * 17, b"xyz", b"-1"):
        with pytest.raises(p.BadPacket):
            p.number(text)
    with pytest.raises(p.BadPacket):
        p.numbers(b"1,2,3")
    with pytest.raises(p.BadPacket):
        p.from_hex(b"abc")
