"""The rings of the host's network card, against one that does what the manual says: frames of every cut and offload."""

import ctypes
import random as chance
import struct
from array import array

import pytest

from vmm.devices.virtio.queue import CHAIN, NOTHING
from vmm.host import e1000_rings as rings
from vmm.host.buffers import BUFFER, COUNT
from vmm.network import offload
from vmm.network.words import NEEDS_CSUM, TCPV4, TCPV6

RX_HEAD, TX_TAIL = 0x2810, 0x3818
DONE, WHOLE = 1, 2


def word_sum(data):
    """RFC 1071's, big-endian, not inverted."""
    total = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Card:
    """Registers and rings in memory, and what the hardware does with them when it is asked to."""

    def __init__(self):
        self.registers = ctypes.create_string_buffer(0x6000)
        self.memory = ctypes.create_string_buffer(rings.BYTES)
        self.hpa = ctypes.addressof(self.memory)
        self.words = array("I", [0] * rings.CARD_WORDS)
        self.words[rings.REGISTERS : rings.REGISTERS + 2] = array("I", halves(ctypes.addressof(self.registers)))
        self.words[rings.RINGS : rings.RINGS + 2] = array("I", halves(self.hpa))
        self.at = self.words.buffer_info()[0]
        for n in range(COUNT):
            struct.pack_into("<Q", self.memory, n * rings.ENTRY, self.hpa + rings.BUFFERS + n * BUFFER)
        self.set(rings.RX_TAIL, COUNT - 1)
        self.head = 0
        self.sent = []
        self.context = self.data = None

    def set(self, register, value):
        struct.pack_into("<I", self.registers, register, value)

    def get(self, register):
        return struct.unpack_from("<I", self.registers, register)[0]

    # -- what the hardware does

    def transmit(self):
        while self.head != self.get(TX_TAIL):
            at = rings.RING + self.head * rings.ENTRY
            address, lower, upper = struct.unpack_from("<QII", self.memory, at)
            assert lower >> 27 & 1, "each descriptor is reported"
            if lower >> 29 & 1 and not lower >> 20 & 15:
                self.context = struct.unpack_from("<BBHBBHIxBH", self.memory, at)
            else:
                size = lower & 0xFFFFF if lower >> 29 & 1 else lower & 0xFFFF
                if self.data is None:
                    self.data, self.command, self.fill = b"", lower, upper >> 8 & 3 if lower >> 29 & 1 else 0
                self.data += ctypes.string_at(address, size)
                if lower >> 24 & 1:
                    self.frame(self.data)
                    self.data = None
            struct.pack_into("<I", self.memory, at + 12, upper | DONE)
            self.head = (self.head + 1) % COUNT

    def frame(self, data):
        if not self.fill:
            self.sent.append(data)
            return
        ip, ip_at, ip_end, tcp, tcp_at, tcp_end, command, head, most = self.context
        assert tcp_end == 0
        if not command >> 26 & 1:
            self.sent.append(checksummed(data, tcp, tcp_at))
            return
        four = command >> 25 & 1
        assert command & 0xFFFFF == len(data) - head and ip_end == (tcp - 1)
        for number, begin in enumerate(range(head, len(data), most)):
            one = bytearray(data[:head] + data[begin : begin + most])
            sequence = struct.unpack_from(">I", one, tcp + 4)[0] + begin - head
            struct.pack_into(">I", one, tcp + 4, sequence & 0xFFFFFFFF)
            if begin + most < len(data):
                one[tcp + 13] &= ~9
            if four:
                struct.pack_into(">HH", one, ip + 2, len(one) - ip, struct.unpack_from(">H", one, ip + 4)[0] + number)
                assert self.fill & 1 and ip_at == ip + 10
                one = bytearray(checksummed(bytes(one), ip, ip_at, tcp))
            else:
                struct.pack_into(">H", one, ip + 4, len(one) - tcp)
            before = struct.unpack_from(">H", one, tcp_at)[0]
            struct.pack_into(">H", one, tcp_at, word_sum(struct.pack(">HH", before, len(one) - tcp)))
            self.sent.append(checksummed(bytes(one), tcp, tcp_at))

    def receive(self, frame, status=DONE | WHOLE, errors=0):
        n = self.get(RX_HEAD)
        assert n != self.get(rings.RX_TAIL), "it owns a descriptor"
        at = n * rings.ENTRY
        (address,) = struct.unpack_from("<Q", self.memory, at)
        ctypes.memmove(address, frame, len(frame))
        struct.pack_into("<HHBBH", self.memory, at + 8, len(frame), 0, status, errors, 0)
        self.set(RX_HEAD, (n + 1) % COUNT)

    # -- what the monitor does

    def put(self, frame, header=bytes(12), cuts=()):
        pieces = [bytes(piece) for piece in cut(frame, cuts)]
        held = [ctypes.create_string_buffer(b"head" + piece) for piece in pieces]
        parts = array("I")
        for buffer, piece in zip(held, pieces, strict=True):
            at = ctypes.addressof(buffer) + (0 if buffer is held[0] else 4)
            parts.extend(array("I", [*halves(at), len(piece) + (4 if buffer is held[0] else 0)]))
        head = ctypes.create_string_buffer(header)
        return rings.put(self.at, parts.buffer_info()[0], 4, len(frame), ctypes.addressof(head))

    def take(self):
        part = array("I", [0] * 3)
        size = rings.take(self.at, part)
        return ctypes.string_at(part[0] | part[1] << 32, size) if size else None


def halves(value):
    return value & 0xFFFFFFFF, value >> 32


def cut(frame, sizes):
    at = 0
    for size in sizes:
        yield frame[at : at + size]
        at += size
    yield frame[at:]


def checksummed(data, start, at, end=None):
    out = bytearray(data)
    struct.pack_into(">H", out, at, ~word_sum(bytes(out[start:end])) & 0xFFFF)
    return bytes(out)


def segments(four, size, most, tag=False):
    """(frame, header) of TCP's data as a guest's driver hands it over; the checksum is that of the pseudo header."""
    length = 20 + size
    tcp = struct.pack(">HHIIBBHHH", 5000, 80, 0xFFFFFF00, 7, 5 << 4, 0x19, 1024, 0, 0)
    if four:
        addresses = bytes((10, 0, 2, 15, 10, 0, 2, 2))
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, 77, 0x4000, 64, 6, 0) + addresses
        ip = checksummed(ip, 0, 10)
    else:
        addresses = bytes(range(32))
        ip = struct.pack(">IHBB", 6 << 28, length, 6, 64) + addresses
    ethernet = bytes(range(12)) + (b"\x81\0\0\5" if tag else b"") + (b"\x08\0" if four else b"\x86\xdd")
    pseudo = word_sum(addresses + struct.pack(">HH", 6, length & 0xFFFF))
    tcp = tcp[:16] + struct.pack(">H", pseudo) + tcp[18:]
    start = len(ethernet) + len(ip)
    header = struct.pack("<BBHHHHH", 1, TCPV4 if four else TCPV6, start + 20, most, start, 16, 1)
    return bytearray(ethernet + ip + tcp + bytes(i * 7 & 0xFF for i in range(size))), header


def test_a_frame_is_sent_from_any_pieces():
    card = Card()
    random = chance.Random(4)
    frames = []
    for _ in range(3 * COUNT):
        frame = random.randbytes(random.choice((60, 61, 1514, random.randrange(14, 1519))))
        cuts = [random.randrange(1, 700) for _ in range(random.randrange(3))]
        if sum(cuts) >= len(frame):
            cuts = []
        assert card.put(frame, cuts=cuts) == CHAIN
        frames.append(frame)
        if random.randrange(4) == 0:
            rings.tell(card.at)
            card.transmit()
    rings.tell(card.at)
    card.transmit()
    assert card.sent == frames


def test_a_full_ring_takes_no_more_until_the_card_has_sent():
    card = Card()
    count = 0
    while card.put(bytes(60)) == CHAIN:
        count += 1
    assert count in (COUNT - 1, COUNT - 2)
    rings.tell(card.at)
    card.transmit()
    assert card.put(bytes(60)) == CHAIN and len(card.sent) == count


@pytest.mark.parametrize("start, offset", [(34, 16), (14, 0), (250, 6), (200, 100), (1000, 8)])
def test_a_checksum_is_filled_in(start, offset):
    card = Card()
    frame = bytearray(chance.Random(start).randbytes(1400))
    header = struct.pack("<BBHHHHH", NEEDS_CSUM, 0, 0, 0, start, offset, 1)
    ((wanted, _),) = offload.finish(bytearray(frame), header, 0)
    assert card.put(frame, header) == CHAIN
    assert card.put(bytes(60)) == CHAIN
    rings.tell(card.at)
    card.transmit()
    assert card.sent == [bytes(wanted), bytes(60)]


@pytest.mark.parametrize("four", [True, False])
@pytest.mark.parametrize("tag", [False, True])
@pytest.mark.parametrize("size", [1460, 1461, 2920, 9000, 65000])
def test_tcps_data_is_cut_by_the_card_as_in_python(four, tag, size):
    card = Card()
    for _ in range(20):  # past the end of the ring
        frame, header = segments(four, size, 1440, tag)
        wanted = [bytes(one) for one, _ in offload.finish(bytearray(frame), header, 0)]
        assert card.put(frame, header, (13, 60, 4000) if size > 5000 else ()) == CHAIN
        rings.tell(card.at)
        card.transmit()
        assert card.sent == wanted
        card.sent.clear()


def test_what_is_no_tcp_is_dropped():
    card = Card()
    for at in (12, 23, 46):  # type, protocol, header's length
        frame, header = segments(True, 4000, 1440)
        frame[at] = 0
        assert card.put(frame, header) == NOTHING
    assert card.put(bytes(20), header) == NOTHING
    rings.tell(card.at)
    card.transmit()
    assert card.sent == []


def test_frames_are_taken_in_order_and_their_buffers_given_back():
    card = Card()
    random = chance.Random(9)
    frames = [random.randbytes(random.randrange(60, 1519)) for _ in range(4 * COUNT)]
    waiting = []
    for frame in frames:
        assert rings.has(card.at) == (1 if waiting else 0)
        card.receive(frame)
        waiting.append(frame)
        if len(waiting) > random.randrange(200):
            while waiting:
                assert card.take() == waiting.pop(0)
            assert card.take() is None
    while waiting:
        assert card.take() == waiting.pop(0)


def test_broken_frames_are_left_out():
    card = Card()
    card.receive(bytes(60), errors=1)
    card.receive(bytes(60), status=DONE)  # only a part
    card.receive(bytes(5))
    card.receive(b"x" * 60)
    assert card.take() == b"x" * 60 and card.take() is None
    assert card.get(rings.RX_TAIL) == 3


def test_an_interrupt_is_owed_an_answer_until_it_has_one():
    card = Card()
    assert rings.has(card.at) == 0
    card.set(rings.ICR, rings.RXT0)
    assert rings.has(card.at) == 1
    card.set(rings.ICR, 0)  # reading it has cleared it
    assert rings.has(card.at) == 1
    rings.answered(card.at)
    assert rings.has(card.at) == 0
    rings.listen(card.at)
    assert card.get(rings.IMS) == rings.RXT0
