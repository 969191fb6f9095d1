"""The records of exits, as vm.exits.trace() shows them."""

import struct

import uctypes

from vmm.insight.exits import words
from vmm.insight.table import Table
from vmm.vtx import reasons, recording

_COLUMNS = "ms", "vcpu", "rip", "symbol", "reason", "detail", "verdict", "ticks"


class Record:
    """One exit. tsc: host TSC; time: seconds since the guest was created; ticks: its duration in host TSC ticks, None
    while it is not over; reason: its name, number: its number."""

    def __init__(self, vm, vcpu, fields, names):
        """vcpu: its number. fields: of recording.RECORD_FORMAT. names: of reasons."""
        (
            self.tsc, self.rip, self.qualification, self.rax, self.rcx, self.rdx, self.gpa, self.ticks, self.intr_info,
            self.number, self.answer, self.slot, self.length, _,
        ) = fields  # fmt: skip
        self.vcpu = vcpu
        self.reason = names.get(self.number, str(self.number))
        self._vm = vm
        if self.ticks == recording.UNKNOWN_DURATION:
            self.ticks = None

    @property
    def time(self):
        """Seconds since the guest was created, by the host TSC."""
        return (self.tsc - self._vm.clock.began) / self._vm.clock.hz

    @property
    def detail(self):
        """The operation that exited, in words."""
        return words.detail(self)

    @property
    def verdict(self):
        """The handler's answer in words."""
        return words.verdict(self.answer)

    @property
    def symbol(self):
        """The name of RIP; "" where the guest has no symbols."""
        return name(self._vm, self.rip)

    def __repr__(self):
        return "<%s at %#x %s: %s; %s, %s ticks>" % (
            self.reason, self.rip, self.symbol, self.detail, self.verdict, self.ticks,
        )  # fmt: skip


class Trace(Table):
    """Records; printed, a table."""

    def __init__(self, records):
        super().__init__(_COLUMNS, records)

    def __repr__(self):
        if not self:
            return "no exits yet: they are recorded from now on"
        named = {}  # RIP: its symbol; most exits have few
        rows = []
        for r in self:
            if r.rip not in named:
                named[r.rip] = r.symbol
            ms = "%.3f" % (r.time * 1000)
            ticks = "" if r.ticks is None else r.ticks
            rows.append((ms, r.vcpu, hex(r.rip), named[r.rip], r.reason, r.detail, r.verdict, ticks))
        return repr(Table(_COLUMNS, rows))

    __str__ = __repr__


def name(vm, gva):
    """The symbol of an address, "" where it lies in none or the guest has none."""
    try:
        return vm.symbols.at(gva) or ""
    except ValueError:
        return ""


def numbers(reason):
    """Numbers of reasons by name or number, one or several; None for all. ValueError."""
    if reason is None:
        return None
    known = {name: number for number, name in reasons.each()}
    found = []
    for one in reason if isinstance(reason, (list, tuple, set)) else (reason,):
        number = known.get(one.upper()) if isinstance(one, str) else one
        if not isinstance(number, int) or not 0 <= number < reasons.SLOTS:
            raise ValueError("%r is no exit reason; see vm.exit_counts()" % (one,))
        found.append(number)
    return found


def _read(exits, vcpu, first, end):
    """Yield the records first ... end - 1 of a vCPU's ring, by their numbers since it began."""
    hpa, size, _ = exits.recording.ring(vcpu)
    for at in range(first, end):
        data = uctypes.bytearray_at(hpa + at % size * recording.RECORD_SIZE, recording.RECORD_SIZE)
        yield struct.unpack(recording.RECORD_FORMAT, data)


def last(exits, count, wanted):
    """The last `count` records of all vCPUs by time; wanted: numbers of reasons, or None."""
    vm = exits._vcpus[0].vm
    names = reasons.names()
    found = []
    for vcpu in exits._vcpus:
        _, size, head = exits.recording.ring(vcpu)
        mine = []
        at = head
        while at > max(0, head - size) and len(mine) < count:
            at -= 1
            for fields in _read(exits, vcpu, at, at + 1):
                if wanted is None or fields[9] in wanted:
                    mine.append(Record(vm, vcpu.number, fields, names))
        found += mine
    found.sort(key=lambda record: record.tsc)
    return Trace(found[-count:])
