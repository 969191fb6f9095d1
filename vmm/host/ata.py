"""ATA disks of the host by PIO, on its four legacy channels.

A channel executes one command at a time, for the guest of the highest priority first; guests run while the disk seeks.
A block of at most 16 sectors is moved when the disk is ready (pio.py), without a preemption point. Source: ATA/ATAPI-6,
"Register delivered data transfer command protocol".
"""

from array import array

import cpu
import uctypes
from micropython import const
from vmx import bind

from vmm.host import ANSWER_S, EDGE, FLUSH, READ, Request
from vmm.host.moving import scatter
from vmm.host.pio import (
    AT_ONCE,
    BSY,
    COMMAND,
    CONTROL,
    COUNT,
    DATA,
    DEVICE,
    DF,
    DRIVE_WORDS,
    DRQ,
    ERR,
    FAILED,
    FLUSHING,
    HIGH,
    INSIDE,
    LOOPS,
    LOW,
    MID,
    MOVES,
    MULTIPLE,
    NIEN,
    PORTS,
    READING,
    SECTORS,
    SELECT,
    SIZE,
    STATUS,
    TAKEN,
    UNEVEN,
    WAITS,
    WORDS,
    WRITING,
    at_once,
    begin,
    issue,
    run,
)

# (ports of the command block, of the control block, interrupt line)
CHANNELS = ((0x1F0, 0x3F6, 14), (0x170, 0x376, 15), (0x1E8, 0x3E6, 11), (0x168, 0x366, 9))

_SRST = const(0x04)  # of the device control

# Commands
IDENTIFY = const(0xEC)
_SET_MULTIPLE = const(0xC6)
_READ_MULTIPLE = const(0xC4)
_READ_MULTIPLE_EXT = const(0x29)
_WRITE_MULTIPLE = const(0xC5)
_WRITE_MULTIPLE_EXT = const(0x39)
_FLUSH_CACHE = const(0xE7)
_FLUSH_CACHE_EXT = const(0xEA)

_LBA = const(0xE0)  # of the device register, with two obsolete bits
_LBA28 = const(1 << 28)
_BLOCK = const(16)  # sectors of one interrupt, at most
_PROBES = const(2)  # in a second: the time limit of a disk that may not be there


class Drive:
    """One disk. number: 0 master, 1 slave; identity: the words of IDENTIFY; block: sectors of one interrupt."""

    def __init__(self, channel, number, identity):
        words = identity
        self.channel = channel
        self.number = number
        self.model = text(words, 27, 47)
        self.serial = text(words, 10, 20)
        self.long = bool(words[83] >> 10 & 1)
        self.sectors = words[60] | words[61] << 16
        if self.long:
            self.sectors = words[100] | words[101] << 16 | words[102] << 32 | words[103] << 48
        self.block = min(words[47] & 0xFF, _BLOCK)
        reach = min(self.sectors, _LBA28)
        self.words = words = array("I", [0] * DRIVE_WORDS)
        words[PORTS], words[CONTROL] = channel.ports, channel.control
        words[SELECT], words[MULTIPLE] = _LBA | number << 4, self.block
        words[READING], words[WRITING] = _READ_MULTIPLE, _WRITE_MULTIPLE
        words[FLUSHING] = _FLUSH_CACHE_EXT if self.long else _FLUSH_CACHE
        words[SIZE], words[SIZE + 1] = reach & 0xFFFFFFFF, reach >> 32

    def quick(self, owner):
        """`quick` of vmm/disks for a Request's owner, whose `ended(ok)` is called."""
        return self.channel.quick(self, owner)

    def submit(self, request):
        """Queue a request, which is carried out when the disk is free."""
        self.channel.submit(self, request)

    def cancel(self, owner):
        """Drop the requests of this owner: after this returns, none accesses memory. Writes that have begun are
        completed."""
        self.channel.cancel(self, owner)

    def finish(self, owner):
        """Complete the requests of this owner."""
        self.channel.finish(self, owner)

    def close(self):
        """Nothing to stop: PIO is done by the monitor's own instructions."""

    def __repr__(self):
        return "%s, %s, %d MiB" % (self.model, self.serial, self.sectors >> 11)


class Channel:
    """One channel. io: the module cpu, or a test's substitute. scheduler: charges guests, and decides which may run."""

    def __init__(self, io, scheduler, ports, control, line):
        self._io = io
        self._scheduler = scheduler
        self.ports = ports
        self.control = control
        self._line = line
        self._waiting = []  # [(drive, request)]
        self.current = None
        self._state = array("I", [0] * WORDS)  # of the command that runs
        self.parts = None
        self._more = False
        self.deadline = 0
        self.patience = ANSWER_S * io.tsc_hz
        self.timeouts = 0

    # -- finding disks

    def probe(self):
        """Find the channel's disks: a list of Drives."""
        io = self._io
        io.outb(self.control, NIEN)
        status = io.inb(self.ports + STATUS)
        if status & (BSY | DRQ) and status not in (0xFF, 0x7F):
            self._reset()  # a soft reset of the monitor has left it in the middle of a command
        drives = []
        for number in (0, 1):
            drive = self._identify(number)
            if drive:
                drives.append(drive)
        if drives:
            io.line(self._line, EDGE)
            io.outb(self.control, 0)
        return drives

    def _identify(self, number):
        io, ports = self._io, self.ports
        io.outb(ports + DEVICE, 0xA0 | number << 4)
        self._pause()
        if io.inb(ports + STATUS) in (0, 0xFF, 0x7F):
            return None
        io.outb(ports + COUNT, 0)
        io.outb(ports + LOW, 0)
        io.outb(ports + MID, 0)
        io.outb(ports + HIGH, 0)
        io.outb(ports + COMMAND, IDENTIFY)
        self._pause()
        status = self._settled()
        if status & (ERR | DF) or not status & DRQ or io.inb(ports + MID) or io.inb(ports + HIGH):
            return None  # no disk, or a packet device (a CD)
        words = [io.inw(ports + DATA) for _ in range(256)]
        if not words[49] & 1 << 9 or not words[47] & 0xFF:
            return None  # it has no LBA, or no blocks
        drive = Drive(self, number, words)
        io.outb(ports + COUNT, drive.block)
        io.outb(ports + COMMAND, _SET_MULTIPLE)
        self._pause()
        return None if self._settled() & (ERR | DF) else drive

    def _pause(self):
        """Wait 400 ns, until the status is valid."""
        for _ in range(4):
            self._io.inb(self.control)

    def _settled(self):
        """Wait until BSY is clear; returns the status, 0xFF after the time limit."""
        io = self._io
        end = io.rdtsc() + io.tsc_hz // _PROBES
        while io.rdtsc() < end:
            status = io.inb(self.ports + STATUS)
            if not status & BSY:
                return status
        return 0xFF

    # -- requests

    def quick(self, drive, owner):
        """Drive.quick()."""
        state, words = uctypes.addressof(self._state), uctypes.addressof(drive.words)
        current = (drive, Request(owner, READ, 0, None, 0, lambda ok: owner.ended(ok)))
        return bind(at_once, self._io, state, words, self, current, self._scheduler.poll_later)

    def submit(self, drive, request):
        state = self._state
        if request.kind != FLUSH and not request.left:
            request.done(True)  # a command of 0 sectors would be one of 256
            return
        self._waiting.append((drive, request))
        state[TAKEN] += 1
        if state[INSIDE]:
            self._more = True
        elif not self.current:
            self._go_on(0, request.vm)

    def look(self, floor):
        """Poll the disk after a host interrupt. floor: only for guests of this priority and above."""
        if self._state[TAKEN]:
            self._go_on(floor, None)

    def _go_on(self, floor, inside):
        """Make progress with requests as far as possible without waiting for the disk. inside: the guest in whose exit
        this runs, only for its requests; None: between turns."""
        state = self._state
        while not state[INSIDE]:
            state[INSIDE] = LOOPS
            try:
                served = self._serve(floor, inside)
            finally:
                state[INSIDE] = 0
            if not served:
                if not self._more:
                    return
                self._more = False

    def _serve(self, floor, inside):
        """One step. False: the disk, or another guest's turn, has to be waited for."""
        current = self.current or self._choose()
        if not current:
            return False
        vm = current[1].vm
        if vm is not inside and (inside or vm.priority < floor):
            self._scheduler.poll_later()
            return False
        if current is not self.current:
            cpu.hold(1)
            waits = current in self._waiting  # a guest that has run meanwhile may have cancelled it
            if waits:
                self._waiting.remove(current)
            cpu.hold(-1)
            if not waits:
                return True
            self.current = current
            self._begin()
        return self._step() if inside else self._scheduler.serve(vm, self._step)

    def _choose(self):
        """The next request, as (drive, request), or None."""
        best = None
        for one in self._waiting:
            if best is None or one[1].vm.priority > best[1].vm.priority:
                best = one
        return best

    def _begin(self):
        """Send the current request's first command."""
        drive, request = self.current
        self.parts = words = request.words
        begin(self._state, words, len(words) // 3, drive.block, 1 if request.kind == READ else 0)
        self._issue()

    def _issue(self):
        """Send the current request's next command."""
        io = self._io
        drive, request = self.current
        sector, kind = request.sector, request.kind
        count = self._state[SECTORS] = min(request.left, AT_ONCE)
        device = _LBA | drive.number << 4
        if kind == FLUSH:
            command = _FLUSH_CACHE_EXT if drive.long else _FLUSH_CACHE
            count = -1
        elif drive.long and sector + count > _LBA28:
            command = _READ_MULTIPLE_EXT if kind == READ else _WRITE_MULTIPLE_EXT
            count |= 1 << 16
        else:
            command = _READ_MULTIPLE if kind == READ else _WRITE_MULTIPLE
            device |= sector >> 24 & 0xF
        request.sector += self._state[SECTORS]
        request.left -= self._state[SECTORS]
        self.deadline = io.rdtsc() + self.patience
        issue(io, self.ports, self.control, device, sector, count, command)

    def _step(self):
        """Move the blocks for which the disk is ready. False: it has to be waited for."""
        io, state = self._io, self._state
        state[INSIDE] = MOVES
        while True:
            answer = run(io, self.ports, self.control, state, self.parts)
            if answer == UNEVEN:
                scatter(io, self.ports + DATA, state, self.parts)
            elif answer == WAITS:
                return self._overdue()
            elif answer == FAILED or not self.current[1].left:
                self._end(answer != FAILED)
                return True
            else:
                self._issue()

    def _overdue(self):
        """Whether the command has exceeded its time limit: then it has failed, and the channel is reset."""
        io = self._io
        if io.rdtsc() < self.deadline:
            io.look_at(self.deadline)
            return False
        self.timeouts += 1
        self._reset()
        self._end(False)
        return True

    def _end(self, ok):
        request = self.current[1]
        self.current = None
        self._state[TAKEN] -= 1
        self._state[INSIDE] = LOOPS
        if self._waiting:
            self._scheduler.poll_later()  # so that they are served even if done() fails
        if request.done:
            request.done(ok)

    def _reset(self):
        """Reset the channel."""
        io = self._io
        io.outb(self.control, _SRST | NIEN)
        self._delay(100000)
        io.outb(self.control, NIEN)
        self._delay(500)
        self._settled()

    def _delay(self, part):
        """Wait for a second divided by `part`."""
        end = self._io.rdtsc() + self._io.tsc_hz // part + 1
        while self._io.rdtsc() < end:
            pass

    def finish(self, drive, owner):
        while not self._state[INSIDE] and self._has(drive, owner):
            self._go_on(0, None)

    def _has(self, drive, owner):
        """Whether there are requests of this owner to this drive."""
        requests = self._waiting + ([self.current] if self.current else [])
        return any([d is drive and r.owner is owner for d, r in requests])

    def cancel(self, drive, owner):
        """Drive.cancel(). No other request is begun meanwhile, since the guest's other disks may be cancelled next."""
        state = self._state
        before = len(self._waiting)
        self._waiting = [(d, r) for d, r in self._waiting if d is not drive or r.owner is not owner]
        state[TAKEN] -= before - len(self._waiting)
        current = self.current
        if not current or current[0] is not drive or current[1].owner is not owner:
            return
        request = current[1]
        done, request.done = request.done, None
        while self.current is current and not state[INSIDE]:
            state[INSIDE] = LOOPS
            try:
                self._step()
            finally:
                state[INSIDE] = 0
        if self.current is not current:
            request.done = done  # for the next one of quick()
        if self._waiting:
            self._scheduler.poll_later()


def text(words, start, end):
    """A string of IDENTIFY, whose bytes are swapped."""
    data = bytearray()
    for word in words[start:end]:
        data += bytes((word >> 8, word & 0xFF))
    return str(data, "ascii").strip("\0 ") if max(data) < 128 else ""
