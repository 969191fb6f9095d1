"""A log of system calls: policies on SYSCALL, SYSRET, SYSCALL32 and SYSRET32 that only write records, in viper
(vmm/insight/linux/callring.py); the records become lines when they are read.

    log = CallLog(vm, (SYSCALL, SYSRET), {"comm": "ls"})
    log.lines, log.dropped, log.follow(), log.stop()

A line joins a call's beginning with its result, by thread. A call costs some 1,000 ticks at each of the two, besides
the exit; formatting it costs some 300,000, when it is read. Limit: of what the arguments point to, only the first bytes
of strings, of argv and of the buffers that vmm/insight/linux/values.py names are kept.
"""

import struct
import time
from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.insight.linux import callring, calls, compat, current, values
from vmm.insight.linux.calls import Call, signature
from vmm.insight.objects import text
from vmm.insight.table import shown
from vmm.policies.policy import Recorder
from vmm.vtx.frame import TASK, TASK_KNOWN, TASK_PID, WANT_CODE, WANT_PAGING
from vmm.vtx.reasons import EXCEPTION_OR_NMI

SIZE = const(0x100000)  # bytes
_LEAST = const(0x4000)
_LARGEST = const(0x10000000)
_SHOWN = const(40)  # lines
_POLL_MS = const(20)
_OPEN = const(4096)  # threads with a call that is not over
_ENDS = ("exit", "exit_group")
_HEAD = "<IIQII"  # what a scan reads of a record
_OPEN_WORDS = const(callring.OPEN)
_OPENS = const(callring.OPENS)
_AT_ENTRY = const(1 << callring.STRING | 1 << callring.STRINGS | 1 << callring.GIVEN)
_AT_RESULT = const(1 << callring.FILLED)
_WANTS = ((EXCEPTION_OR_NMI, WANT_CODE | WANT_PAGING),)  # words of the frame


class Captured:
    """The bytes that a record has of a program's memory, in place of its address space."""

    def __init__(self):
        self._pieces = []

    def add(self, record):
        """The pieces of a record, bytes."""
        at = callring.HEADER
        while at < len(record):
            gva, size, _ = struct.unpack_from(callring.PIECE_FORMAT, record, at)
            at += callring.PIECE
            self._pieces.append((gva, record[at : at + size]))
            at += size + 7 & ~7

    def read(self, gva, size):
        """Return bytes. ValueError where they were not captured."""
        for start, data in self._pieces:
            if start <= gva and gva + size <= start + len(data):
                return data[gva - start : gva - start + size]
        raise ValueError("gva %#x: %d bytes were not recorded" % (gva, size))

    def number(self, gva, size):
        """An unsigned number of `size` bytes. ValueError as read()."""
        return int.from_bytes(self.read(gva, size), "little")


class CallLog:
    """The log of one VM. dropped: how many records newer ones have overwritten.

    events: SYSCALL, SYSRET or both; filters: theirs; size: bytes of the ring, rounded up to a power of two; named:
    lines begin with the program's name; old: SYSCALL32, SYSRET32 or both, for the calls of 32-bit programs where the
    kernel has any. number= in filters is of 64-bit programs where it is a number, of either where it is a name.
    """

    def __init__(self, vm, events, filters, size=SIZE, named=False, old=()):
        if not isinstance(size, int) or isinstance(size, bool) or not _LEAST <= size <= _LARGEST:
            raise ValueError("size=%r: a log has from %d to %d bytes" % (size, _LEAST, _LARGEST))
        rounded = _LEAST
        while rounded < size:
            rounded *= 2
        self.vm = vm
        self.policies = []
        self._kernel = vm.kernel
        self._named = named
        self._begins = any([event.name == "syscall" for event in events])
        self._returns = any([event.name == "sysret" for event in events])
        self._words = words = array("I", bytes(4 * callring.WORDS))
        space = self._kernel.space
        self._put(callring.ROOT, space.root)
        words[callring.SHIFT] = space.shift
        words[callring.SIZE] = rounded
        self._ring = self._taken = vm.take(rounded)
        self._kept = None
        self._put(callring.RING, self._ring)
        self._followed = None
        try:
            for event in events:
                self.policies.append(vm.on(event, **filters)(self._recorder(event.name)))
            filters = self._old(filters) if old else None
            for event in old if filters is not None else ():
                self.policies.append(vm.on(event, **filters)(self._recorder(event.name)))
        except BaseException:
            self.stop()
            raise

    def _recorder(self, name):
        task = current.of(self.vm)
        task.learn()
        begins = name.startswith("syscall")
        copies = _AT_ENTRY if begins else _AT_RESULT if self._begins else _AT_ENTRY | _AT_RESULT
        parts = [uctypes.addressof(self._words), copies, self.vm.memory.table, task.locate, task.place, self._plan]
        if name == "syscall":
            return Recorder("log", bind(callring.entry, *parts), _WANTS)
        if begins:
            return Recorder("log", bind(callring.entry_32, *parts, compat.ways(self._kernel)[1] or 0), _WANTS)
        at = parts[0]
        narrow = (lambda test: lambda link, below: test(link, bind(begun, at, link, below))) if self._begins else None
        return Recorder("log", bind(callring.result, *parts, int(name == "sysret32")), _WANTS, narrow)

    def _old(self, filters):
        """The filters for 32-bit programs' calls; None: there are none of them."""
        kernel = self._kernel
        try:
            compat.ways(kernel)
        except ValueError:
            return None
        if "number" not in filters:
            return filters
        several = filters["number"]
        several = several if isinstance(several, (list, tuple)) else (several,)
        numbers = calls.numbers_32(kernel, [name for name in several if isinstance(name, str)])
        return dict(filters, number=numbers) if numbers else None

    def _plan(self, number):
        """Set the plan of a call at its first occurrence: what its arguments point to."""
        plan = 0
        try:
            old = number >= callring.NUMBERS
            plan = plan_of(signature(self._kernel, number - callring.NUMBERS if old else number, old), old)
        except (ValueError, KeyError, AttributeError, MemoryError):
            pass  # no types in the kernel: its arguments are numbers
        self._words[callring.PLANS + number] = plan | callring.KNOWN

    def _put(self, word, value):
        self._words[word] = value & 0xFFFFFFFF
        self._words[word + 1] = value >> 32

    def _get(self, word):
        return self._words[word] | self._words[word + 1] << 32

    # -- reading

    @property
    def dropped(self):
        """How many records newer ones have overwritten."""
        return self._words[callring.DROPPED]

    def _read(self, position, size):
        at = self._ring + (position & self._words[callring.SIZE] - 1)
        return uctypes.bytes_at(at, size)

    def _check(self):
        """RuntimeError where the guest and its memory are gone."""
        if self._taken:
            self.vm.vcpus[0].number

    def record(self, position):
        """(kind, tsc, pid, tgid, comm, (number, whether it is of 32-bit programs), result, arguments, its bytes)."""
        data = self._read(position, struct.unpack("<I", self._read(position, 4))[0])
        _, kind, tsc, pid, tgid, comm, number, old, result, *arguments = struct.unpack_from(
            callring.HEADER_FORMAT, data
        )
        return kind, tsc, pid, tgid, comm, (number, bool(old)), result, tuple(arguments), data

    def calls(self, reader):
        """Yield (position of the beginning or -1, of the result or -1) of the calls that are over, from where `reader`
        is."""
        self._check()
        both = self._begins and self._returns
        if reader.position < self._get(callring.TAIL):
            reader.position = self._get(callring.TAIL)
        while reader.position < self._get(callring.HEAD):
            at = reader.position
            size, kind, _, pid, _ = struct.unpack(_HEAD, self._read(at, struct.calcsize(_HEAD)))
            reader.position += size
            if kind == callring.ENTRY:
                before = reader.open.pop(pid, -1)
                if before >= self._get(callring.TAIL):
                    yield before, -1  # it has no result, as sigreturn
                if not both or self._ends(at):
                    yield at, -1
                elif len(reader.open) < _OPEN:
                    reader.open[pid] = at
            elif kind == callring.RESULT:
                began = reader.open.pop(pid, -1)
                yield began if began >= self._get(callring.TAIL) else -1, at

    def _ends(self, position):
        known = signature(self._kernel, *self.record(position)[5])
        return known is not None and known.name in _ENDS

    def line(self, began, ended, end=""):
        """The line of a call, by the positions of its records."""
        record = self.record(began if began >= 0 else ended)
        _, _, pid, tgid, comm, number, result, arguments, data = record
        space = Captured()
        space.add(data)
        if began >= 0:
            result = None
            if ended >= 0:
                *_, its, result, _, data = self.record(ended)
                if its[1] == number[1] and its != number:  # an execve() may change [1]
                    return self._head(record) + "%r = ?" % Call(self._kernel, number[0], arguments, number[1], space)
                space.add(data)
            elif self._returns:
                end = end or " = ?"
        return self._head(record) + repr(Call(self._kernel, number[0], arguments, number[1], space, result)) + end

    def _head(self, record):
        if self._named:
            return "%s[%d] " % (shown(text(record[4])), record[3])
        return "[%d] " % record[2]

    @property
    def lines(self):
        """The calls that are over, oldest first: a list of str."""
        return [self.line(*pair) for pair in self.calls(Reader())]

    def unfinished(self):
        """Lines of the calls that have no result yet."""
        reader = Reader()
        for _ in self.calls(reader):
            pass
        return self._unfinished(reader)

    def _unfinished(self, reader):
        return [self.line(at, -1, " <unfinished ...>") for at in sorted(reader.open.values())]

    def follow(self):
        """Print the calls as they come, until Ctrl-C; records that were overwritten meanwhile are reported."""
        reader = self._followed = self._followed or Reader()
        dropped = self.dropped
        try:
            while True:
                for pair in self.calls(reader):
                    if self.dropped != dropped:
                        print("... %d records are lost" % (self.dropped - dropped))
                        dropped = self.dropped
                    print(self.line(*pair))
                time.sleep_ms(_POLL_MS)
        except KeyboardInterrupt:
            pass

    def stop(self):
        """Record no longer. What was recorded stays, on the heap where there is room for it."""
        for policy in self.policies:
            policy.detach()
        if self._taken:
            self._check()
            try:
                used = min(self._get(callring.HEAD), self._words[callring.SIZE])
                self._kept = uctypes.bytes_at(self._ring, used)
            except MemoryError:
                return  # it stays in the guest's pages until the guest is destroyed
            self._ring = uctypes.addressof(self._kept)
            self.vm.give(self._taken)
            self._taken = 0

    def __repr__(self):
        reader = Reader()
        pairs = list(self.calls(reader))
        lines = [self.line(*pair) for pair in pairs[-_SHOWN:]] + self._unfinished(reader)
        return "\n".join(lines) or "no system call yet"


class Reader:
    """How far a log has been read. open: {thread: position of its call's beginning}."""

    def __init__(self):
        self.position = 0
        self.open = {}


def plan_of(known, old):
    """Four bits for each argument: what it points to (callring.STRING ...). known: a Signature, or None; old: of 32-bit
    programs."""
    plan = 0
    for index, (type, name) in enumerate((known.arguments if known else None) or ()):
        buffer = values.buffer_of(known.name, name)
        what = 0
        if "*" not in type:
            pass
        elif buffer == values.BY_RESULT:
            what = callring.FILLED
        elif buffer is not None:
            what = callring.GIVEN if buffer == index + 1 else 0
        elif type == "const char *":
            what = callring.STRING
        elif type == "const char *const *" and not old:
            what = callring.STRINGS
        plan |= what << 4 * index
    return plan


@micropython.viper
def begun(words: int, link, below, vcpu) -> int:
    """After a task filter has refused a result (vmm/insight/linux/current.py): go on to `link` where the beginning of
    its call has been recorded, else to `below`. execve may have changed the name that comm= tests."""
    w = ptr32(words)
    f = ptr32(vcpu)
    if f[TASK] | f[TASK + 1]:
        if f[TASK_KNOWN] | f[TASK_KNOWN + 1]:
            pid = int(ptr32(int(f[TASK_PID]) | int(f[TASK_PID + 1]) << 32)[0])
            i = _OPEN_WORDS + 2 * (pid & _OPENS - 1)
            if pid and int(w[i]) == pid and w[i + 1] == f[TASK_KNOWN]:
                return int(link(vcpu))
    return int(below(vcpu))
