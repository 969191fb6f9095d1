"""SATA disks of the host behind an AHCI controller: those of PCs, and QEMU's on a Q35.

DMA commands with 48-bit addresses; up to 8 are sent at once, and the disk executes them in order. Source: Serial ATA
AHCI 1.3.1; ATA/ATAPI-6.
"""

from array import array

import cpu
import uctypes
from micropython import const

from vmm.devices.pci_header import BUS_MASTER, MEMORY_SPACE
from vmm.host import FLUSH, LEVEL, READ, WRITE
from vmm.host.ata import IDENTIFY, text
from vmm.host.queued import Queued
from vmm.host.virtio import read32, write32

_ABAR = const(5)

# Registers of the controller
_CAP = const(0x00)
_GHC = const(0x04)
_IS = const(0x08)
_PI = const(0x0C)
_AHCI = const(1 << 31)  # of GHC: AHCI enable
_INTERRUPTS = const(1 << 1)
_RESET = const(1)

# Registers of a port
_PORTS = const(0x100)
_PORT = const(0x80)  # bytes
_CLB = const(0x00)
_FB = const(0x08)
_PIS = const(0x10)
_PIE = const(0x14)
_CMD = const(0x18)
_TFD = const(0x20)
_SIG = const(0x24)
_SSTS = const(0x28)
_SCTL = const(0x2C)
_SERR = const(0x30)
_CI = const(0x38)
_START = const(1 << 0)  # of CMD
_SPIN_UP = const(1 << 1)
_POWER = const(1 << 2)
_RECEIVE = const(1 << 4)
_RECEIVING = const(1 << 14)
_RUNNING = const(1 << 15)
_DISK = const(0x00000101)  # a signature
_THERE = const(3)  # of SSTS: a device, and it communicates
_BUSY = const(0x88)  # of TFD: BSY, DRQ
_ERRORS = const(1 << 30 | 1 << 29 | 1 << 28 | 1 << 27)  # of the port's IS: task file, bus, interface
_ALL = const(_ERRORS | 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3)  # errors, and the FISs that end a command

# Memory of a port
_SLOTS = const(8)
_LIST = const(1024)
_FIS = const(256)
_TABLE = const(1024)  # of a slot: a command's FIS and its buffers
_MOST = const(56)
_PRDT = const(0x80)
_LARGEST = const(1 << 22)

_COMMANDS = {READ: 0x25, WRITE: 0x35, FLUSH: 0xEA}
_IDENTITY = const(512)  # bytes
_WAIT_S = const(10)
_RESET_S = const(1)


class Controller:
    """function: of vmm.host.pci. report(text): called for a disk that does not work. disks: those that do. ValueError
    if the controller does not work."""

    def __init__(self, function, scheduler, take, report):
        function.enable(MEMORY_SPACE | BUS_MASTER)
        self._base = base = function.memory(_ABAR)
        write32(base + _GHC, read32(base + _GHC) | _AHCI)
        write32(base + _GHC, read32(base + _GHC) | _RESET)
        _until(lambda: not read32(base + _GHC) & _RESET, "it does not come out of reset")
        write32(base + _GHC, _AHCI)
        self._scheduler = scheduler
        self._line = function.line
        self.disks = []
        there = read32(base + _PI)
        far = read32(base + _CAP) >> 31
        for n in range(32):
            if there >> n & 1:
                port = base + _PORTS + n * _PORT
                write32(port + _CMD, read32(port + _CMD) | _SPIN_UP | _POWER)
                if not _linked(port):
                    continue
                try:
                    disk = Sata(port, scheduler, take, far)
                except ValueError as error:
                    report("%r, port %d: %s" % (function, n, error))
                    continue
                if disk.sectors:
                    self.disks.append(disk)
        cpu.line(self._line, LEVEL)
        write32(base + _GHC, _AHCI | _INTERRUPTS)

    def look(self, floor):
        """Poll the disks after a host interrupt. floor: only for guests of this priority and above."""
        caused = read32(self._base + _IS)
        for disk in self.disks:
            disk.look(floor)
        if caused:
            write32(self._base + _IS, caused)
            cpu.line(self._line, LEVEL)


class Sata(Queued):
    """One disk. port: address of its registers; far: whether DMA reaches memory above 4 GiB. sectors: 0 for a device
    that is no disk, such as a CD drive."""

    def __init__(self, port, scheduler, take, far):
        self._port = port
        self.sectors = 0
        hpa = take(_LIST + _FIS + _SLOTS * _TABLE)
        if not far and hpa >> 32:
            raise ValueError("it reaches no memory above 4 GiB")
        self._hpa = hpa
        self._under_way = 0  # slots, by bit
        cpu.zero(hpa, _LIST + _FIS + _SLOTS * _TABLE)
        self._stop()
        for register, value in ((_CLB, hpa), (_FB, hpa + _LIST)):
            write32(port + register, value & 0xFFFFFFFF)
            write32(port + register + 4, value >> 32)
        write32(port + _SERR, 0xFFFFFFFF)
        self._start()
        if read32(port + _SIG) != _DISK:
            self._stop()
            return
        Queued.__init__(self, scheduler, take, _SLOTS, _MOST, _LARGEST, 2, None)
        at = take(_IDENTITY)
        self._put(0, IDENTIFY, 0, 0, [(at, _IDENTITY)])
        one = [-1]

        def answered():
            one[0] = self._next()
            return one[0] >= 0

        _until(answered, "it does not answer")
        words = array("H", uctypes.bytes_at(at, _IDENTITY))
        if not one[0] & 1 or not words[83] >> 10 & 1:
            raise ValueError("it has no 48-bit addresses")
        self.model, self.serial = text(words, 27, 47), text(words, 10, 20)
        self.sectors = words[100] | words[101] << 16 | words[102] << 32 | words[103] << 48
        write32(port + _PIE, _ALL)

    def _start(self, seconds=_WAIT_S):
        port = self._port
        write32(port + _CMD, read32(port + _CMD) | _RECEIVE)
        _until(lambda: not read32(port + _TFD) & _BUSY, "it stays busy", seconds)
        write32(port + _CMD, read32(port + _CMD) | _START)

    def _stop(self, seconds=_WAIT_S):
        port = self._port
        write32(port + _CMD, read32(port + _CMD) & ~_START)
        _until(lambda: not read32(port + _CMD) & _RUNNING, "its port does not stop", seconds)
        write32(port + _CMD, read32(port + _CMD) & ~_RECEIVE)
        _until(lambda: not read32(port + _CMD) & _RECEIVING, "its port does not stop", seconds)

    def _reset(self):
        """COMRESET. Source: AHCI 1.3.1, "Port Reset"."""
        port = self._port
        self._under_way = 0
        try:
            self._stop(_RESET_S)
        except ValueError:
            pass  # COMRESET follows, which stops the port
        control = read32(port + _SCTL) & ~15
        write32(port + _SCTL, control | 1)
        end = cpu.rdtsc() + cpu.tsc_hz // 1000
        while cpu.rdtsc() < end:
            pass
        write32(port + _SCTL, control)
        _until(lambda: read32(port + _SSTS) & 15 == _THERE, "it is not there after a reset", _RESET_S)
        write32(port + _SERR, 0xFFFFFFFF)
        write32(port + _PIS, 0xFFFFFFFF)
        self._start(_RESET_S)
        write32(port + _PIE, _ALL)

    def _send(self, slot, kind, sector, parts):
        count = sum([size for _, size in parts]) >> 9
        self._put(slot, _COMMANDS[kind], sector, count, parts, kind == WRITE)

    def _put(self, slot, command, sector, count, parts, writes=False):
        table = self._hpa + _LIST + _FIS + slot * _TABLE
        write32(table, 0x27 | 0x80 << 8 | command << 16)
        write32(table + 4, sector & 0xFFFFFF | 0x40 << 24)
        write32(table + 8, sector >> 24 & 0xFFFFFF)
        write32(table + 12, count & 0xFFFF)
        at = table + _PRDT
        for hpa, size in parts:
            write32(at, hpa & 0xFFFFFFFF)
            write32(at + 4, hpa >> 32)
            write32(at + 12, size - 1)
            at += 16
        header = self._hpa + slot * 32
        write32(header, 5 | (1 << 6 if writes else 0) | len(parts) << 16)
        write32(header + 4, 0)
        write32(header + 8, table & 0xFFFFFFFF)
        write32(header + 12, table >> 32)
        self._under_way |= 1 << slot
        write32(self._port + _CI, 1 << slot)

    def _caused(self):
        """The controller, not the disk, has the interrupt."""
        return 0

    def _next(self):
        port = self._port
        causes = read32(port + _PIS)
        if causes & _ERRORS:
            return self._failed()
        if causes:
            write32(port + _PIS, causes)
        ended = self._under_way & ~read32(port + _CI)
        for slot in range(_SLOTS):
            if ended >> slot & 1:
                self._under_way &= ~(1 << slot)
                return slot << 1 | 1
        return -1

    def _failed(self):
        """After an error: returns the command at which the port has stopped, and sends the others again."""
        port = self._port
        slot = read32(port + _CMD) >> 8 & 31
        again = self._under_way & read32(port + _CI) & ~(1 << slot)
        self._stop()
        write32(port + _SERR, 0xFFFFFFFF)
        write32(port + _PIS, 0xFFFFFFFF)
        self._start()
        self._under_way &= ~(1 << slot)
        write32(port + _CI, again)
        return slot << 1


def _linked(port):
    """Whether a device is at a port; it is detected within 10 ms."""
    end = cpu.rdtsc() + cpu.tsc_hz // 100
    while read32(port + _SSTS) & 15 != _THERE:
        if cpu.rdtsc() > end:
            return False
    return True


def _until(test, why, seconds=_WAIT_S):
    end = cpu.rdtsc() + seconds * cpu.tsc_hz
    while not test():
        if cpu.rdtsc() > end:
            raise ValueError(why)
