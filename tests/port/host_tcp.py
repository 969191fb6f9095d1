"""At the prompt: a network interface as a guest's driver uses it, at the switch that leads to the machine's card, and
as much of TCP as a conversation takes. No guest runs: QEMU has no VT-x, so the rings are filled here.
"""

import struct
from array import array

import cpu
import uctypes

from vmm.devices.virtio.device import DRIVER_OK, FEATURES_OK, INDIRECT_DESC, VERSION_1
from vmm.devices.virtio.net import Net
from vmm.memory.guest import GuestMemory
from vmm.network.port import Port
from vmm.network.switch import Switches

MAC = b"\x02\0\0\0\0\x01"
GATEWAY, OWN = b"\x0a\0\2\2", b"\x0a\0\2\x0f"
BASE = VERSION_1 | INDIRECT_DESC
OFFLOADS = 1 << 0 | 1 << 1 | 1 << 7 | 1 << 11 | 1 << 15  # CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF
ENTRIES, BUFFER = 64, 2048
RINGS, SENDS, RECEIVES, SIZE = (0x1000, 0x4000), 0x10000, 0x30000, 0x60000
MSS, LONG, WINDOW = 1460, 14600, 0xFFFF
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
PATIENCE_S = 20


class Scheduler:
    """What ports and the uplink use of the scheduler's."""

    hz, nested = 1000, False

    def __init__(self):
        self.depth = array("I", [0] * 4)
        self._words = array("I", [0] * 64)
        self.drivers = []

    def defer(self, settle=None):
        pass

    def on_behalf(self, vm, work):
        work()

    def poll_later(self):
        pass

    def serve(self, vm, work):
        return work()


class Clock:
    hz = 1000000

    def now(self):
        return 0

    def timer(self, due):
        return self

    def arm(self, deadline):
        pass

    def cancel(self):
        pass


class Cpu:
    frame_hpa, clock = 0, Clock()


class Vm:
    vcpus, priority = (Cpu, Cpu), 0

    def __init__(self, scheduler):
        self.monitor, self.scheduler = self, scheduler


class Ring:
    """A driver's side of queue n."""

    def __init__(self, memory, queue, at):
        self.memory, self.at = memory, at
        queue.size = ENTRIES
        queue.addresses = [at, at + 0x1000, at + 0x2000]
        memory.write(at + 0x1000, bytes(0x2000))
        self.added = self.seen = 0

    def add(self, n, gpa, size, writable):
        """Descriptor n alone is a chain."""
        memory = self.memory
        memory.write(self.at + 16 * n, struct.pack("<QIHH", gpa, size, 2 if writable else 0, 0))
        memory.write_u16(self.at + 0x1004 + 2 * (self.added % ENTRIES), n)
        self.added = self.added + 1 & 0xFFFF
        memory.write_u16(self.at + 0x1002, self.added)

    def back(self):
        """(head, bytes) that the device has given back next, or None."""
        if self.seen == self.memory.read_u16(self.at + 0x2002):
            return None
        at = self.at + 0x2004 + 8 * (self.seen % ENTRIES)
        self.seen = self.seen + 1 & 0xFFFF
        return self.memory.read_u32(at), self.memory.read_u32(at + 4)


class Interface:
    """offloads: whether its driver takes long frames, and leaves checksums and segmentation to others."""

    def __init__(self, monitor, offloads):
        self.scheduler = Scheduler()
        self.switches = Switches(self.scheduler, None, None, monitor.pages)
        self.memory = memory = GuestMemory([(0, SIZE, monitor.pages.take(SIZE))])
        self.net = net = Net(memory, print, MAC)
        net.signal = net.changed = lambda *_: None
        self.port = Port(Vm(self.scheduler), net, "tcp")
        self.switches.join("host", self.port)
        self.port.power(True)
        features = BASE | (OFFLOADS if offloads else 1 << 15)
        net.write_status(3)
        net.accept(0, features & 0xFFFFFFFF)
        net.accept(1, features >> 32)
        net.write_status(3 | FEATURES_OK)
        self.receives, self.sends = [Ring(memory, net.queues[n], RINGS[n]) for n in (0, 1)]
        net.enable(0)
        net.enable(1)
        net.write_status(3 | FEATURES_OK | DRIVER_OK)
        for n in range(ENTRIES):
            self.receives.add(n, RECEIVES + n * BUFFER, BUFFER, True)

    def send(self, header, frame):
        self.memory.write(SENDS, header + frame)
        self.sends.add(0, SENDS, len(header) + len(frame), False)
        self.net.kicks[1]()
        if self.sends.back() is None:
            raise OSError("the frame has not been taken")

    def receive(self):
        """(header, frame), or None where none is there."""
        for look in self.scheduler.drivers:
            look(0)
        first = self.receives.back()
        if first is None:
            return None
        data = b""
        count = None
        while first:
            head, size = first
            data += self.memory.read(RECEIVES + head * BUFFER, size)
            self.receives.add(head, RECEIVES + head * BUFFER, BUFFER, True)
            if count is None:
                count = data[10] | data[11] << 8
            count -= 1
            first = self.receives.back() if count else None
        return data[:12], data[12:]

    def wait(self, wanted):
        """The answer of wanted(header, frame) that is not None."""
        end = cpu.rdtsc() + PATIENCE_S * cpu.tsc_hz
        while cpu.rdtsc() < end:
            got = self.receive()
            if got:
                end = cpu.rdtsc() + PATIENCE_S * cpu.tsc_hz
                found = wanted(*got)
                if found is not None:
                    return found
        raise OSError("no answer")


def total(data):
    """The sum of 16-bit words, as checksums have it, low byte first."""
    return cpu.add_up(uctypes.addressof(data), len(data), 0) if data else 0


class Conversation:
    """TCP to a port of the host's loopback. counts: frames, those that came long, those that went long."""

    def __init__(self, interface, port):
        self.interface = interface
        self.port = port
        self.offloads = bool(interface.port.words[2] & 1)
        self.number, self.expected = 0x12345678, 0
        self.acknowledged = self.number
        self.window = 0
        self.data = bytearray()
        self.closed = False
        self.frames = self.long_in = self.long_out = self.wrong = 0
        self.gateway = self._ask()
        self._segment(SYN, b"", b"\x02\x04" + struct.pack(">H", MSS))
        self.number += 1
        interface.wait(self._takes_until(lambda: self.acknowledged == self.number))
        self._segment(ACK)

    def _ask(self):
        """The gateway's address, by ARP."""
        request = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + MAC + OWN + bytes(6) + GATEWAY
        self.interface.send(bytes(12), b"\xff" * 6 + MAC + b"\x08\x06" + request + bytes(18))
        return self.interface.wait(lambda _, f: f[22:28] if f[12:14] == b"\x08\x06" and f[28:32] == GATEWAY else None)

    def _segment(self, flags, data=b"", options=b""):
        size = 20 + len(options)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + size + len(data), 1, 0x4000, 64, 6, 0) + OWN + GATEWAY
        ip = ip[:10] + struct.pack("<H", ~total(ip) & 0xFFFF) + ip[12:]
        tcp = struct.pack(">HHII", 5000, self.port, self.number & 0xFFFFFFFF, self.expected & 0xFFFFFFFF)
        tcp += struct.pack(">BBHHH", size << 2, flags, WINDOW, 0, 0) + options
        pseudo = total(OWN + GATEWAY + struct.pack(">HH", 6, size + len(data)))
        if self.offloads:
            tcp = tcp[:16] + struct.pack("<H", pseudo) + tcp[18:]
            header = struct.pack("<BBHHHHH", 1, 0, 0, 0, 34, 16, 0)
            if len(data) > MSS:
                header = struct.pack("<BBHHHHH", 1, 1, 34 + size, MSS, 34, 16, 0)
                self.long_out += 1
        else:
            sum_ = cpu.add_up(uctypes.addressof(tcp + data), size + len(data), pseudo)
            tcp = tcp[:16] + struct.pack("<H", ~sum_ & 0xFFFF) + tcp[18:]
            header = bytes(12)
        self.interface.send(header, self.gateway + MAC + b"\x08\0" + ip + tcp + data)

    def _takes_until(self, over):
        """For Interface.wait(): take segments until over()."""

        def takes(header, frame):
            if frame[12:14] == b"\x08\0" and frame[23] == 6 and frame[36:38] == b"\x13\x88":
                self._take(header, frame)
            return True if over() else None

        return takes

    def _take(self, header, frame):
        size = (frame[16] << 8 | frame[17]) - 20
        tcp = frame[34 : 34 + size]
        self.frames += 1
        if len(frame) > 1514:
            self.long_in += 1
        if total(frame[14:34]) != 0xFFFF:
            self.wrong += 1
            return
        pseudo = total(frame[26:34] + struct.pack(">HH", 6, size))
        if header[0] & 1:  # a checksum that is to be filled in: the pseudo header's is there
            right = tcp[16:18] == struct.pack("<H", pseudo)
        else:
            right = cpu.add_up(uctypes.addressof(tcp), size, pseudo) == 0xFFFF
        if not right:
            self.wrong += 1
            return
        _, _, number, acknowledges, offset, flags, window = struct.unpack(">HHIIBBH", tcp)
        if flags & RST:
            raise OSError("reset")
        if flags & ACK:
            self.acknowledged, self.window = acknowledges, window
        if flags & SYN:
            self.expected = number + 1
            return
        data = tcp[offset >> 4 << 2 :]
        if number == self.expected & 0xFFFFFFFF:
            self.data += data
            self.expected += len(data)
            if flags & FIN:
                self.expected += 1
                self.closed = True
        if data or flags & FIN:
            self._segment(ACK)

    def say(self, data):
        """Send all of it, as far as the peer's window lets."""
        at = 0
        while at < len(data):
            room = self.window - (self.number - self.acknowledged & 0xFFFFFFFF)
            piece = data[at : at + min(LONG if self.offloads else MSS, max(room, 0))]
            if piece:
                self._segment(ACK | PSH, piece)
                self.number += len(piece)
                at += len(piece)
            else:
                self.interface.wait(self._takes_until(lambda before=self.acknowledged: self.acknowledged != before))

    def hear(self, size):
        """`size` bytes of the peer's."""
        if len(self.data) < size:
            self.interface.wait(self._takes_until(lambda: len(self.data) >= size or self.closed))
        out, self.data = bytes(self.data[:size]), bytearray(self.data[size:])
        return out
