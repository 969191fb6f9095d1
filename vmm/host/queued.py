"""The base of drivers for disks with DMA and several commands at once: splits requests into commands.

Commands of guests of the highest priority are sent first. Buffers that a device cannot take (unaligned ones, or too
many for one sector) go by a bounce buffer. A command that has not ended after ANSWER_S has failed: the disk is reset,
which stops its DMA, and the commands that are not late are sent again.
"""

import cpu
from micropython import const

from vmm.devices.virtio.queue import cut
from vmm.disks import SECTOR
from vmm.host import ANSWER_S, FLUSH, LEVEL, READ, WRITE

_BETWEEN = const(32)  # sectors


class Queued:
    """A subclass has _send(slot, kind, sector, parts), _caused() (whether it has interrupted), _next() (slot << 1 | ok
    of the next command that has ended, or -1), _stop(), _reset() (drops all commands and makes it ready again;
    ValueError if it stays unready).

    slots: number of commands; most: buffers of a command; largest: bytes of a buffer; align: of its address and size;
    line: its interrupt line, or None. scheduler: charges guests, and decides which may run. take(size): host memory.
    """

    flushes = True  # whether the disk has a write cache

    def __init__(self, scheduler, take, slots, most, largest, align, line):
        self._scheduler = scheduler
        self._most = most
        self._largest = largest
        self._align = align
        self._line = line
        self._slots = [None] * slots  # requests
        self._commands = [None] * slots  # (kind, sector, parts)
        self._until = [0] * slots  # TSC
        self.patience = ANSWER_S * cpu.tsc_hz
        self.timeouts = 0
        self._dead = False  # a reset has failed
        self._between = [take(_BETWEEN * SECTOR) for _ in range(slots)]
        self._copies = [None] * slots  # target buffers of a read into the bounce buffer
        self._waiting = []
        self._ended = []  # slot << 1 | ok of commands that have ended, until _end()
        self._sending = False

    def quick(self, _owner):
        """There is no `quick` of vmm/disks: data moves by DMA."""

    def submit(self, request):
        """Queue a request; it is done when all its commands are."""
        if request.kind == FLUSH and not self.flushes:
            request.done(True)  # writes are durable without a flush
            return
        request.parts = joined(request.words, self._largest)
        request.under_way = 0
        request.ok = True
        if self._dead:
            request.done(False)
            return
        at = len(self._waiting)
        while at and self._waiting[at - 1].vm.priority < request.vm.priority:
            at -= 1
        self._waiting.insert(at, request)
        self._go_on()

    def _go_on(self):
        """Send commands as far as there are free slots. A guest of higher priority may preempt it and submit another
        request, which is then sent here, too."""
        while self._waiting and None in self._slots and not self._sending:
            self._sending = True
            try:
                if self._waiting and None in self._slots:
                    self._send_next()
            finally:
                self._sending = False

    def _send_next(self):
        slot, request = self._slots.index(None), self._waiting[0]
        self._slots[slot] = request
        request.under_way += 1
        parts, sector = self._command(slot, request), request.sector
        request.sector += _bytes(parts) // SECTOR
        if not request.parts:
            self._waiting.remove(request)
        self._begin(slot, request.kind, sector, parts)

    def _begin(self, slot, *command):
        """Send a command: (kind, sector, parts)."""
        self._commands[slot] = command
        self._until[slot] = until = cpu.rdtsc() + self.patience
        self._send(slot, *command)
        cpu.look_at(until)

    def _command(self, slot, request):
        """The buffers of the request's next command."""
        parts = request.parts
        taken = parts[: self._most]
        size = _bytes(taken) // SECTOR * SECTOR
        if parts and (not size or any([(hpa | length) % self._align for hpa, length in taken])):
            size = min(_bytes(parts), _BETWEEN * SECTOR)
            between = self._between[slot]
            ours = cut(parts, 0, size)
            if request.kind == WRITE:
                at = between
                for hpa, length in ours:
                    cpu.copy(at, hpa, length)
                    at += length
            else:
                self._copies[slot] = ours
            taken = [(between, size)]
        elif size != _bytes(taken):
            taken = cut(taken, 0, size)
        request.parts = cut(parts, size, _bytes(parts) - size) if size < _bytes(parts) else []
        return taken

    def look(self, floor):
        """Poll the disk after a host interrupt, or when a command is late. floor: only for guests of this priority and
        above."""
        caused = self._caused()
        try:
            self._gather(self._scheduler.serve)
            for one in list(self._ended):
                if one in self._ended and self._slots[one >> 1].vm.priority >= floor:
                    self._ended.remove(one)
                    self._scheduler.serve(self._slots[one >> 1].vm, lambda one=one: self._end(one))
        finally:
            if self._ended:  # of guests below `floor`, or behind one whose done() has failed
                self._scheduler.poll_later()
            if caused and self._line is not None:
                cpu.line(self._line, LEVEL)

    def _gather(self, serve):
        """Collect commands that have ended, or are late, in _ended. serve: the scheduler's between turns, else _now."""
        one = self._next()
        while one >= 0:
            self._ended.append(one)
            one = self._next()
        ended = [one >> 1 for one in self._ended]
        begun = [slot for slot, request in enumerate(self._slots) if request and slot not in ended]
        if begun:
            now, first = cpu.rdtsc(), min([self._until[slot] for slot in begun])
            if now < first:
                cpu.look_at(first)
            else:
                self._overdue(begun, now, serve)

    def _overdue(self, begun, now, serve):
        """Reset the disk. begun: slots of the commands that have not ended."""
        self.timeouts += 1
        failed = [slot for slot in begun if now >= self._until[slot]]
        try:
            serve(self._slots[failed[0]].vm, self._reset)
        except ValueError:
            self._dead = True
            failed = begun
        self._ended += [slot << 1 for slot in failed]
        for slot in begun:
            if slot not in failed:
                self._begin(slot, *self._commands[slot])
        if self._dead:
            waiting, self._waiting = self._waiting, []
            for request in waiting:
                request.parts = []
                request.ok = False
                if not request.under_way and request.done:
                    request.done(False)

    def _end(self, one):
        """A command has ended."""
        slot = one >> 1
        request, self._slots[slot] = self._slots[slot], None
        copies, self._copies[slot] = self._copies[slot], None
        request.under_way -= 1
        if request.kind == READ and not copies:
            for hpa, length in self._commands[slot][2]:
                cpu.wrote(hpa, length)
        if not one & 1:
            request.ok = False
            if request.parts:
                request.parts = []
                self._waiting.remove(request)
        elif copies and request.done:
            at = self._between[slot]
            for hpa, length in copies:
                cpu.copy(hpa, at, length)
                at += length
        if not request.under_way and not request.parts and request.done:
            request.done(request.ok)
        self._go_on()

    def cancel(self, owner):
        """Drop the requests of this owner: after this returns, none accesses memory. Writes that have begun are
        completed. Requests of other owners end later, since the guest's other disks may be cancelled next."""
        self._waiting = [request for request in self._waiting if request.owner is not owner]
        mine = [request for request in self._slots if request and request.owner is owner]
        for request in mine:
            request.done = None
            request.parts = []
        while any([request.under_way for request in mine]):
            self._gather(_now)
            for one in list(self._ended):
                if self._slots[one >> 1] in mine:
                    self._ended.remove(one)
                    self._end(one)
        if self._ended:
            self._scheduler.poll_later()

    def finish(self, owner):
        """Complete the requests of this owner."""
        while any([request and request.owner is owner for request in self._slots + self._waiting]):
            self._gather(_now)
            for one in list(self._ended):
                self._ended.remove(one)
                self._end(one)

    def close(self):
        """Stop the disk before a soft reset."""
        self._stop()

    def __repr__(self):
        return "%s, %s, %d MiB" % (self.model, self.serial, self.sectors >> 11)


def _now(_vm, work):
    """Scheduler.serve() in the guest's own exit, or outside of any."""
    work()


def _bytes(parts):
    return sum([size for _, size in parts])


def joined(words, most):
    """[(hpa, bytes), ...] of a request's words: adjacent buffers are joined, and split at `most` bytes."""
    out = []
    for at in range(0, len(words), 3):
        hpa, size = words[at] | words[at + 1] << 32, words[at + 2]
        if out and out[-1][0] + out[-1][1] == hpa and out[-1][1] + size <= most:
            hpa, before = out.pop()
            size += before
        while size > most:
            out.append((hpa, most))
            hpa += most
            size -= most
        out.append((hpa, size))
    return out
