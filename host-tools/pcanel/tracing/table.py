"""The tables of `pcanel top`, by rich."""

from collections.abc import Iterator
from contextlib import suppress

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from pcanel.ram.guest import Memory
from pcanel.tracing.frames import Facts, Frame

_REASONS = 12  # rows
_WIDTH = 100  # columns, where the output is no terminal

Snapshot = dict[tuple[str, int], Frame]


def snapshot(memory: Memory, facts: Facts) -> Snapshot:
    """The frames of all vCPUs."""
    return {
        (guest.name, number): Frame(memory, hpa)
        for guest in facts.guests
        for number, (hpa, _) in enumerate(guest.vcpus)
    }


class Screen:
    """Where tables are shown: on a terminal each replaces the one before, elsewhere they follow each other."""

    def __init__(self, live: bool):
        self._console = Console() if live else Console(width=_WIDTH)
        self._live = Live(console=self._console, screen=True, auto_refresh=False) if live else None

    def __enter__(self) -> "Screen":
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *exception) -> None:
        if self._live:
            self._live.__exit__(*exception)

    def show(self, group: Group) -> None:
        if self._live:
            self._live.update(group, refresh=True)
        else:
            self._console.print(group)


def tables(facts: Facts, before: Snapshot, after: Snapshot, note: str = "") -> Group:
    """What has happened between two snapshots. Times are of the host TSC."""
    now = max((frame.entry_tsc for frame in after.values()), default=0)
    then = max((frame.entry_tsc for frame in before.values()), default=0)
    span = max(now - then, 1)
    total, free = facts.heap
    head = f"heap {(total - free) >> 10} of {total >> 10} KiB in use; {len(facts.guests)} guests"
    parts = [head + (f"; {note}" if note else "")]
    return Group(*parts, _guests(facts, before, after, span), _exits(before, after, span, facts.hz))


def _guests(facts: Facts, before: Snapshot, after: Snapshot, span: int) -> Table:
    table = Table(title="guests")
    table.add_column("guest")
    table.add_column("state")
    for name in ("vCPU", "priority", "share", "CPU", "in exits", "exits/s", "late, mean us", "late, max us"):
        table.add_column(name, justify="right")
    for guest in facts.guests:
        for number, (_, state) in enumerate(guest.vcpus):
            old, new = before.get((guest.name, number)), after[guest.name, number]
            if old is None:
                continue
            inside, host = new.guest_ticks - old.guest_ticks, new.host_ticks - old.host_ticks
            exits = _sum(new) - _sum(old)
            timed, late, latest = new.timed()
            timed_before, late_before, _ = old.timed()
            mean = "-"
            if timed > timed_before:
                mean = f"{(late - late_before) * 1e6 / facts.hz / (timed - timed_before):.1f}"
            table.add_row(
                guest.name if not number else "", state, str(number), str(guest.priority), str(guest.share),
                _percent(inside + host, span), _percent(host, inside + host), f"{exits * facts.hz / span:.0f}",
                mean, f"{latest * 1e6 / facts.hz:.1f}" if timed else "-",
            )  # fmt: skip
    return table


def _sum(frame: Frame) -> int:
    return sum(count for count, _ in frame.exits().values())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole > 0 else "-"


def _exits(before: Snapshot, after: Snapshot, span: int, hz: int) -> Table:
    table = Table(title="exits")
    table.add_column("guest")
    table.add_column("reason")
    for name in ("exits/s", "ticks each", "share of a CPU"):
        table.add_column(name, justify="right")
    for guest, reason, count, ticks in sorted(_changes(before, after), key=lambda row: -row[3])[:_REASONS]:
        table.add_row(guest, reason, f"{count * hz / span:.0f}", f"{ticks / count:.0f}", _percent(ticks, span))
    return table


def _changes(before: Snapshot, after: Snapshot) -> Iterator[tuple[str, str, int, int]]:
    """(guest, reason, exits, ticks) of the exits in between."""
    found: dict[tuple[str, str], list[int]] = {}
    for key, new in after.items():
        old = before[key].exits() if key in before else {}
        for reason, (count, ticks) in new.exits().items():
            with suppress(KeyError):
                count, ticks = count - old[reason][0], ticks - old[reason][1]
            if count > 0:
                sums = found.setdefault((key[0], reason), [0, 0])
                sums[0] += count
                sums[1] += ticks
    for (guest, reason), (count, ticks) in found.items():
        yield guest, reason, count, ticks
