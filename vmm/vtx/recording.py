"""Records and measures of a VM's exits, as port/trace.h writes them into memory outside Python's heap.

While neither is on, the exit loop has no instruction for them. A record costs an exit some 45 ticks, a measure some 30
(docs/tracing.md). Each vCPU has a ring of its own: a record is RECORD_SIZE bytes, little-endian, in RECORD_FORMAT. A
measure is the distribution of an exit's host TSC ticks by slot of the dispatch table. Times are host TSC.
"""

from micropython import const

from vmm.vtx.frame import (
    MEASURED,
    MEASURED_SLOT,
    RECORDED,
    TRACE_BETWEEN,
    TRACE_HEAD,
    TRACE_HOST,
    TRACE_MASK,
    TRACE_OPEN,
    TRACE_RING,
)
from vmm.vtx.reasons import TABLE_SLOTS

RECORD_SIZE = const(64)
# TSC at the exit, RIP, qualification, RAX, low halves of RCX and RDX, gpa, duration, interruption information, reason,
# verdict, slot, instruction length, 0. The gpa and the interruption information are valid for reasons that have them.
RECORD_FORMAT = "<QQQQIIQIIHHBBH"
UNKNOWN_DURATION = const(0xFFFFFFFF)  # the exit is not over
UNKNOWN_VERDICT = const(0xFFFF)

SLOT_SIZE = const(1040)  # bytes: ticks in all, the longest, BUCKETS counts of 32 bits
BUCKETS = const(256)
BUCKET_BITS = const(34)  # longer exits are counted in the last bucket
COUNTS = const(16)  # bytes of a distribution before its counts

LEAST = const(64)  # records of a ring
MOST = const(1 << 20)


def bucket_start(index):
    """The least number of ticks of a bucket. Eight buckets cover each power of two."""
    if index < 8:
        return index
    return (8 + (index & 7)) << (index >> 3) - 1


def quantile(counts, part):
    """The number of ticks (the middle of a bucket) below which the fraction `part` of a distribution lies; None if it
    is empty."""
    total = sum(counts)
    if not total:
        return None
    wanted = part * total
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if count and seen >= wanted:
            return (bucket_start(index) + bucket_start(index + 1)) // 2
    return bucket_start(BUCKETS - 1)


class Recording:
    """Recording of one VM's vCPUs. take(size), give(hpa): memory of the VM outside the heap."""

    def __init__(self, vcpus, take, give):
        self._vcpus = vcpus
        self._take = take
        self._give = give
        self.size = 0  # records of each vCPU's ring
        self.measures = False

    def rings(self, size):
        """Record the last `size` exits of each vCPU, a power of two; 0: stop and drop them. ValueError, OutOfMemory."""
        if size and not LEAST <= size <= MOST:
            raise ValueError("%r records: a ring has from %d to %d" % (size, LEAST, MOST))
        if size & (size - 1):
            raise ValueError("%r records: a ring has a power of two of them" % size)
        self._put(TRACE_RING, size * RECORD_SIZE, lambda vcpu: self._clear(vcpu, size))
        self.size = size

    def _clear(self, vcpu, size):
        put = vcpu.scheduled.put
        put(TRACE_OPEN, 0)
        put(TRACE_HEAD, 0)
        put(TRACE_MASK, size - 1 if size else 0)

    def measure(self, on):
        """Measure exits from now on, or no longer. OutOfMemory."""
        self._put(MEASURED, TABLE_SLOTS * SLOT_SIZE if on else 0, lambda vcpu: vcpu.scheduled.put(MEASURED_SLOT, 0))
        self.measures = bool(on)

    def _put(self, word, size, clear):
        """Allocate new memory, all zero, for each vCPU's `word` of the frame; size 0: only free the old."""
        fresh = []
        try:
            for _ in self._vcpus if size else ():
                fresh.append(self._take(size))
        except MemoryError:
            for hpa in fresh:
                self._give(hpa)
            raise
        for number, vcpu in enumerate(self._vcpus):
            scheduled = vcpu.scheduled
            old = scheduled.get(word)
            scheduled.put(word, 0)
            clear(vcpu)
            scheduled.put(word, fresh[number] if size else 0)
            on = scheduled.get(TRACE_RING) or scheduled.get(MEASURED)
            if size:  # in the middle of an exit: none of it has been charged yet
                scheduled.put(TRACE_HOST, vcpu.host_ticks)
                scheduled.put(TRACE_BETWEEN, 0)
            scheduled.put(RECORDED, int(bool(on)))
            if old:
                self._give(old)

    def ring(self, vcpu):
        """(hpa, size, number of records written) of a vCPU's ring; size in records."""
        get = vcpu.scheduled.get
        return get(TRACE_RING), self.size, get(TRACE_HEAD)

    def distribution(self, vcpu, slot):
        """hpa of a slot's distribution, whose counts are COUNTS bytes behind; 0 while exits are not measured."""
        base = vcpu.scheduled.get(MEASURED)
        return base + slot * SLOT_SIZE if base else 0

    def between(self, vcpu):
        """Host TSC ticks that the monitor has used for a vCPU outside of exits since the last rings() or measure():
        beginnings of turns, service of host interrupts, wake-ups."""
        get = vcpu.scheduled.get
        ticks = get(TRACE_BETWEEN)
        if not (get(TRACE_OPEN) or get(MEASURED_SLOT)):
            ticks += vcpu.host_ticks - get(TRACE_HOST)
        return ticks
