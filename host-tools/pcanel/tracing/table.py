"""The tables of `pcanel top`, by rich. Where a terminal is too small they are cut off, not squeezed: what is to be seen
is right."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table

from pcanel.ram.guest import Memory
from pcanel.tracing.frames import Facts, Frame

_REASONS = 12  # rows
_WIDTH = 100  # columns, where the output is no terminal
_WIDEST = 1000

Snapshot = dict[tuple[str, int], Frame]


def snapshot(memory: Memory, facts: Facts) -> Snapshot:
    """The frames of all vCPUs, but those of guests that have been destroyed since facts were asked for."""
    found = {
        (guest.name, number): Frame(memory, hpa)
        for guest in facts.guests
        for number, (hpa, _) in enumerate(guest.vcpus)
    }
    return {key: frame for key, frame in found.items() if frame.starts}


class Tables:
    """Text and tables below each other, as wide as they are."""

    def __init__(self, *parts: str | Table):
        self._parts = parts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for part in self._parts:
            wide = options.update(width=_WIDEST)
            width = Measurement.get(console, wide, part).maximum
            for line in console.render_lines(part, wide.update(width=width), pad=False):
                yield from Segment.adjust_line_length(line, options.max_width)
                yield Segment.line()


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

    def show(self, group: Tables) -> None:
        if self._live:
            self._live.update(group, refresh=True)
        else:
            self._console.print(group)


def tables(facts: Facts, before: Snapshot, after: Snapshot, note: str = "") -> Tables:
    """The differences of two snapshots. Times are of the host TSC."""
    now = max((frame.entry_tsc for frame in after.values()), default=0)
    then = max((frame.entry_tsc for frame in before.values()), default=0)
    span = max(now - then, 1)
    total, free = facts.heap
    head = f"heap {(total - free) >> 10} of {total >> 10} KiB in use; {len(facts.guests)} guests"
    head += f"; {note}" if note else ""
    return Tables(head, _guests(facts, before, after, span), _exits(before, after, span, facts.hz))


def _guests(facts: Facts, before: Snapshot, after: Snapshot, span: int) -> Table:
    table = _table("guest", "state", "vCPU", "prio", "share", "CPU", "in exits", "exits/s", "late, mean", "max")
    for guest in facts.guests:
        for number, (_, state) in enumerate(guest.vcpus):
            old, new = before.get((guest.name, number)), after.get((guest.name, number))
            if old is None or new is None:
                continue
            inside, host = new.guest_ticks - old.guest_ticks, new.host_ticks - old.host_ticks
            exits = _sum(new) - _sum(old)
            timed, late, latest = new.timed()
            timed_before, late_before, _ = old.timed()
            mean = "-"
            if timed > timed_before:
                mean = _time((late - late_before) / facts.hz / (timed - timed_before))
            table.add_row(
                guest.name if not number else "", state, str(number), str(guest.priority), str(guest.share),
                _percent(inside + host, span), _percent(host, inside + host), f"{exits * facts.hz / span:.0f}",
                mean, _time(latest / facts.hz) if timed else "-",
            )  # fmt: skip
    return table


def _table(*columns: str) -> Table:
    """The first two columns are text, the others numbers."""
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number > 1 else "left", no_wrap=True)
    return table


def _time(seconds: float) -> str:
    for unit, name in ((1, "s"), (1e3, "ms")):
        if seconds * unit >= 10:
            return f"{seconds * unit:.0f} {name}"
    return f"{seconds * 1e6:.1f} us"


def _sum(frame: Frame) -> int:
    return sum(count for count, _ in frame.exits().values())


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole > 0 else "-"


def _exits(before: Snapshot, after: Snapshot, span: int, hz: int) -> Table:
    table = _table("guest", "reason", "exits/s", "ticks each", "share of a CPU")
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
