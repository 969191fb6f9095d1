"""An ATA channel with one disk, register by register, as far as a driver by PIO needs it."""

import ctypes
import struct

BSY, DRDY, DRQ, ERR = 0x80, 0x40, 0x08, 0x01
NIEN = 2


class Io:
    """What the module cpu is to a driver. seeks: looks at the status during which a read is busy."""

    tsc_hz = 1000

    def __init__(self, content, ports=0x1F0, control=0x3F6, seeks=0, long=True, block=4):
        self.content = content
        self.ports, self.control = ports, control
        self.seeks = seeks
        self.long = long
        self.most = block
        self.block = 0
        self.regs = [[0, 0] for _ in range(8)]
        self.status = DRDY
        self.busy = 0
        self.quiet = True
        self.lines = {}
        self.interrupts = 0
        self.flushed = None  # the content at the last flush
        self.failing = set()  # sectors
        self.data = bytearray()
        self.now = 0
        self.dead = False
        self.empty = False  # neither busy nor ready
        self.commands = []

    def rdtsc(self):
        self.now += 1
        return self.now

    def look_at(self, tsc):
        self.at = tsc

    def line(self, n, kind):
        self.lines[n] = kind

    def interrupt(self):
        if not self.quiet:
            self.interrupts += 1

    def look(self):
        if self.busy:
            self.busy -= 1
            return BSY
        if self.dead:
            return BSY
        if self.empty:
            return DRDY
        return self.status if self.regs[6][0] & 0x10 == 0 else 0

    def inb(self, port):
        if port == self.control:
            return self.look()
        at = port - self.ports
        return self.look() if at == 7 else self.regs[at][0]

    def inw(self, port):
        assert port == self.ports and self.status & DRQ
        word = struct.unpack_from("<H", self.data)[0]
        del self.data[:2]
        self.drained()
        return word

    def outb(self, port, value):
        if port == self.control:
            self.quiet = bool(value & NIEN)
            if value & 4:
                self.dead = self.empty = False
                self.status, self.left, self.busy = DRDY, 0, 0
            return
        at = port - self.ports
        if at == 7:
            self.command(value)
        else:
            self.regs[at] = [value, self.regs[at][0]]

    def where(self, long):
        r = self.regs
        if long:
            sector = sum(r[n][i] << shift for n, i, shift in
                         ((3, 0, 0), (4, 0, 8), (5, 0, 16), (3, 1, 24), (4, 1, 32), (5, 1, 40)))  # fmt: skip
            return sector, (r[2][0] | r[2][1] << 8) or 65536
        return r[3][0] | r[4][0] << 8 | r[5][0] << 16 | (r[6][0] & 15) << 24, r[2][0] or 256

    def command(self, code):
        if self.regs[6][0] & 0x10:
            return
        self.commands.append(code)
        self.status, self.left = DRDY, 0
        if code == 0xEC:
            self.reads, self.left, self.data = True, 0, bytearray(self.identity())
            self.status = DRDY | DRQ
        elif code == 0xC6:
            self.block = self.regs[2][0]
        elif code in (0xC4, 0x29, 0xC5, 0x39):
            self.sector, self.left = self.where(code in (0x29, 0x39))
            self.reads = code in (0xC4, 0x29)
            self.busy = self.seeks if self.reads else 0
            self.next()
        elif code in (0xE7, 0xEA):
            self.flushed = bytes(self.content)
        else:
            self.status = DRDY | ERR

    def next(self):
        """The next block of sectors."""
        if not self.left:
            self.status = DRDY
            if not self.reads:
                self.interrupt()
            return
        count = min(self.left, self.block)
        at = self.sector * 512
        if self.failing & set(range(self.sector, self.sector + count)) or at + count * 512 > len(self.content):
            self.status = DRDY | ERR
            return
        self.status = DRDY | DRQ
        self.data = bytearray(self.content[at : at + count * 512]) if self.reads else bytearray()
        self.expected = count * 512
        self.interrupt()

    def drained(self):
        if self.reads and not self.data:
            if self.left:
                count = min(self.left, self.block)
                self.sector, self.left = self.sector + count, self.left - count
            self.next()

    def insl(self, port, hpa, count):
        assert port == self.ports and self.status & DRQ and 4 * count <= len(self.data)
        ctypes.memmove(hpa, bytes(self.data[: 4 * count]), 4 * count)
        del self.data[: 4 * count]
        self.drained()

    def outsl(self, port, hpa, count):
        assert port == self.ports and self.status & DRQ
        self.data += ctypes.string_at(hpa, 4 * count)
        assert len(self.data) <= self.expected
        if len(self.data) == self.expected:
            at = self.sector * 512
            self.content[at : at + self.expected] = self.data
            self.sector, self.left = self.sector + self.expected // 512, self.left - self.expected // 512
            self.busy = self.seeks
            self.next()

    def identity(self):
        words = [0] * 256
        sectors = len(self.content) // 512
        for start, size, text in ((10, 10, "serial"), (27, 20, "model one")):
            raw = text.ljust(2 * size).encode()
            for i in range(size):
                words[start + i] = raw[2 * i] << 8 | raw[2 * i + 1]
        words[47] = 0x8000 | self.most
        words[49] = 1 << 9
        words[60], words[61] = sectors & 0xFFFF, sectors >> 16
        words[83] = int(self.long) << 10
        words[100], words[101] = sectors & 0xFFFF, sectors >> 16
        return struct.pack("<256H", *words)
