"""The table of vm.exits.top(): what exits cost, by reason, by handler and by policy. Times are host TSC ticks."""

from array import array

import uctypes

from vmm.insight.exits import words
from vmm.insight.table import Table
from vmm.vtx import reasons, recording

_COLUMNS = "exit", "count", "ticks", "share", "median", "99 %", "maximum"
_SHOWN = 3  # keys of a slot that are shown


class Top(Table):
    """A table with lines above it."""

    def __init__(self, rows, head):
        super().__init__(_COLUMNS, rows)
        self.head = head

    def __repr__(self):
        return self.head + "\n" + super().__repr__()

    __str__ = __repr__


def _share(ticks, total):
    return "%5.1f%%" % (100 * ticks / total) if total else ""


def _times(vcpus):
    guest = sum([vcpu.guest_ticks for vcpu in vcpus])
    host = sum([vcpu.host_ticks for vcpu in vcpus])
    return "%d ticks in the guest, %d in the monitor (%s)" % (guest, host, _share(host, guest + host).strip())


def counted(exits, most):
    """Counts and sums by reason, since the guest was created."""
    rows = []
    statistics = exits.statistics()
    total = sum([ticks for _, ticks in statistics.values()])
    for name, (count, ticks) in statistics.items():
        rows.append((name, count, ticks, _share(ticks, total), "", "", ""))
    rows.sort(key=lambda row: -row[2])
    head = _times(exits._vcpus) + "; from now on exits are measured: ask again for medians and handlers"
    return Top(rows[:most], head)


class _Sum:
    """The sum of the distributions of several slots or vCPUs."""

    def __init__(self):
        self.ticks = 0
        self.longest = 0
        self.counts = [0] * recording.BUCKETS

    def add(self, hpa):
        ticks, longest = array("Q", bytes(uctypes.bytearray_at(hpa, recording.COUNTS)))
        if not ticks:
            return
        self.ticks += ticks
        self.longest = max(self.longest, longest)
        counts = self.counts
        for index, count in enumerate(_counts(hpa)):
            if count:
                counts[index] += count

    def merge(self, other):
        self.ticks += other.ticks
        self.longest = max(self.longest, other.longest)
        self.counts = [a + b for a, b in zip(self.counts, other.counts)]

    def row(self, name, total):
        return (
            name, sum(self.counts), self.ticks, _share(self.ticks, total),
            self._quantile(0.5), self._quantile(0.99), self.longest,
        )  # fmt: skip

    def _quantile(self, part):
        return min(recording.quantile(self.counts, part), self.longest)


def _counts(hpa):
    return array("I", bytes(uctypes.bytearray_at(hpa + recording.COUNTS, 4 * recording.BUCKETS)))


def measured(exits, most):
    """Distributions by reason, and below each those of its handlers, since measure()."""
    found = []
    names = reasons.names()
    for reason in range(reasons.SLOTS):
        parts = []
        for slot, keys in exits.slots(reason):
            part = _Sum()
            for vcpu in exits._vcpus:
                part.add(exits.recording.distribution(vcpu, slot))
            if any(part.counts):
                parts.append((part, _slot_name(exits, reason, keys)))
        if parts:
            whole = _Sum()
            for part, _ in parts:
                whole.merge(part)
            found.append((whole, names.get(reason, "%d" % reason), parts))
    found.sort(key=lambda item: -item[0].ticks)
    total = sum([whole.ticks for whole, _, _ in found])
    rows = []
    for whole, name, parts in found:
        rows.append(whole.row(name, total))
        if len(parts) > 1:
            parts.sort(key=lambda item: -item[0].ticks)
            rows += [part.row("  " + text, total) for part, text in parts]
    between = sum([exits.recording.between(vcpu) for vcpu in exits._vcpus])
    rows = rows[:most] + [("between exits", "", between, "", "", "", "")] + _policies(exits._vcpus[0].vm)
    return Top(rows, _times(exits._vcpus))


def _policies(vm):
    """Rows of the attached policies: what their functions took, since they were attached."""
    rows = []
    for policy in vm.policies:
        name = "policy %s on %s" % (policy.name, policy.event.name)
        rows.append((name, policy.hits, policy.ticks, "", "", "", ""))
    return rows


def _slot_name(exits, reason, keys):
    """The device and the keys that a slot serves, as text. keys: of the slot; None: it serves all other keys."""
    if keys is None:
        return "others"
    vm = exits._vcpus[0].vm
    shown = ", ".join([words.key(reason, key) for key in keys[:_SHOWN]]) or "no longer used"
    if len(keys) > _SHOWN:
        shown += " and %d more" % (len(keys) - _SHOWN)
    device = keys and _device(vm, reason, keys[0])
    return "%s: %s" % (device, shown) if device else shown


def _device(vm, reason, key):
    """The name of the device that a port or a page belongs to, or None."""
    if reason == reasons.IO_INSTRUCTION:
        for base, count, device, _ in vm.port_bus.ranges:
            if base <= key >> 16 < base + count:
                return type(device).__name__
    elif reason == reasons.EPT_VIOLATION:
        found = vm.mmio_bus.find(key)
        return type(found[1]).__name__ if found else None
    return None


def merge(recording_, vcpu, slot, reason):
    """Add a slot's distribution to the one of its reason, and empty it."""
    source = recording_.distribution(vcpu, slot)
    target = recording_.distribution(vcpu, reason)
    sums = _Sum()
    sums.add(source)
    sums.add(target)
    uctypes.bytearray_at(target, recording.COUNTS)[:] = bytes(array("Q", [sums.ticks, sums.longest]))
    uctypes.bytearray_at(target + recording.COUNTS, 4 * recording.BUCKETS)[:] = bytes(array("I", sums.counts))
    uctypes.bytearray_at(source, recording.SLOT_SIZE)[:] = bytes(recording.SLOT_SIZE)
