"""Pictures of a trace (rows.py) and of its samples (samples.py), by matplotlib."""

import csv
import math
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt

from pcanel.errors import InputError
from pcanel.tracing.perfetto_file import pairs
from pcanel.tracing.rows import COLUMNS
from pcanel.tracing.samples import Sample, file_of

_FORMATS = ("png", "svg")
_BINS = 120
_SIZE = (11, 8)
_OTHERS = "others"


def load(path: Path) -> list[dict[str, str]]:
    """The rows of a trace. InputError where the file is none."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        try:
            if reader.fieldnames != COLUMNS:
                raise ValueError
        except (ValueError, csv.Error):
            raise InputError(f"{path} is no trace of exits (pcanel trace NAME FILE.csv writes one)") from None
        try:
            found = [row for row in reader if _check(row["time"], row["tsc"], row["ticks"])]
        except (TypeError, ValueError, csv.Error):
            raise InputError(f"{path}: line {reader.line_num} is no exit: was the file cut off?") from None
    if not found:
        raise InputError(f"{path} has no exits")
    return found


def _check(time: str, *numbers: str) -> bool:
    """True. ValueError, TypeError: no numbers that a plot can have."""
    if not (math.isfinite(float(time)) and float(time) > 0 and all(int(number) >= 0 for number in numbers)):
        raise ValueError(time)
    return True


def load_samples(path: Path) -> list[Sample]:
    """The samples beside a trace; none where there is no such file."""
    if not path.exists():
        return []
    numbers = ("vcpu", "guest_ticks", "host_ticks", "timed", "late", "latest")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        try:
            return [
                Sample(**{**row, "time": float(row["time"]), **{name: int(row[name]) for name in numbers}})
                for row in reader
                if _check(row["time"], *[row[name] for name in numbers])
            ]
        except (KeyError, TypeError, ValueError, csv.Error):
            raise InputError(f"{path}: line {reader.line_num} is no sample: was the file cut off?") from None


def draw(path: Path, base: Path, most: int) -> list[Path]:
    """Write the pictures; returns their files. base: their beginning; most: reasons with a colour of their own."""
    rows = load(path)
    samples = load_samples(file_of(path))
    hz = _hz(rows)
    return _save(_exits(rows, hz, most), base.with_name(base.name + ".exits")) + _save(
        _guests(samples, hz), base.with_name(base.name + ".guests")
    )


def _hz(rows: list[dict[str, str]]) -> float:
    return max(int(row["tsc"]) / float(row["time"]) for row in rows[:1])


def _save(figure, base: Path) -> list[Path]:
    paths = [base.with_name(f"{base.name}.{kind}") for kind in _FORMATS]
    for path in paths:
        figure.savefig(path, dpi=120)
    plt.close(figure)
    return paths


def _by_reason(rows, most: int) -> dict[str, list]:
    """{reason: rows}, those with the most exits first; the rest together."""
    found = defaultdict(list)
    for row in rows:
        found[row["reason"]].append(row)
    ranked = sorted(found, key=lambda reason: -len(found[reason]))
    chosen = {reason: found[reason] for reason in ranked[:most]}
    rest = [row for reason in ranked[most:] for row in found[reason]]
    return {**chosen, _OTHERS: rest} if rest else chosen


def _exits(rows, hz: float, most: int):
    """Exits over time by reason; durations by reason, on a logarithmic scale."""
    groups = _by_reason(rows, most)
    times = [[float(row["time"]) for row in group] for group in groups.values()]
    figure, (over_time, durations) = plt.subplots(2, 1, figsize=_SIZE, layout="constrained")
    start, end = min(map(min, times)), max(map(max, times))
    over_time.hist(times, bins=_BINS, range=(start, max(end, start + 1e-6)), stacked=True, label=list(groups))
    over_time.set(xlabel="seconds", ylabel=f"exits in {(end - start) / _BINS * 1000:.3g} ms", title="Exits over time")
    over_time.legend(fontsize="small")
    ticks = [np.array([max(int(row["ticks"]), 1) for row in group]) for group in groups.values()]
    low, high = min(t.min() for t in ticks), max(t.max() for t in ticks)
    bins = np.geomspace(low, max(high, low + 1) * 1.01, _BINS)
    for reason, values in zip(groups, ticks, strict=True):
        durations.hist(values, bins=bins, histtype="step", label=f"{reason} (median {int(np.median(values))})")
    durations.set(
        xscale="log", yscale="log", ylabel="exits", title="Durations",
        xlabel=f"host TSC ticks of an exit ({hz / 1e6:.0f} a microsecond)",
    )  # fmt: skip
    durations.legend(fontsize="small")
    return figure


def _guests(samples: list[Sample], hz: float):
    """CPU use and lateness over time, a line for each vCPU."""
    figure, (use, late) = plt.subplots(2, 1, figsize=_SIZE, layout="constrained", sharex=True)
    lines = defaultdict(lambda: ([], [], []))
    for before, after in pairs(samples):
        span = (after.time - before.time) * hz
        times, used, lateness = lines[after.guest, after.vcpu]
        times.append(after.time)
        used.append(100 * (after.guest_ticks + after.host_ticks - before.guest_ticks - before.host_ticks) / span)
        timed = after.timed - before.timed
        lateness.append(1e6 * (after.late - before.late) / timed / hz if timed else float("nan"))
    for (guest, vcpu), (times, used, lateness) in sorted(lines.items()):
        use.plot(times, used, marker=".", label=f"{guest} vCPU {vcpu}")
        if not all(np.isnan(lateness)):
            late.plot(times, lateness, marker=".", label=f"{guest} vCPU {vcpu}")
    use.set(ylabel="percent of a CPU", title="CPU use, exits included")
    late.set(xlabel="seconds", ylabel="microseconds", title="From a timer's deadline to the entry, mean")
    for axes in (use, late):
        if axes.lines:
            axes.legend(fontsize="small")
    return figure
