"""The results of a run: build/bench.json, the table on the terminal, the table in docs/benchmarks.md."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from pcanel.bench.guest import Row
from pcanel.bench.measures import SHORTEST_EXIT, Measure
from pcanel.errors import InputError
from pcanel.paths import BUILD, ROOT

JSON = BUILD / "bench.json"
DOCUMENT = ROOT / "docs/benchmarks.md"
_BEGIN = "<!-- the table, from build/bench.json -->"
_END = "<!-- end of the table -->"


@dataclass
class Results:
    """meta: versions and machine; {reason: exits} of a boot. cpu: Bochs's model. native, pcanel, kvm: {name of a
    measure: Row}."""

    meta: dict[str, str | dict[str, int]]
    cpu: str
    native: dict[str, Row] = field(default_factory=dict)
    pcanel: dict[str, Row] = field(default_factory=dict)
    kvm: dict[str, Row] = field(default_factory=dict)

    def document(self, measures: tuple[Measure, ...]) -> dict:
        """The contents of bench.json."""
        return {"meta": self.meta, "rows": self.rows(measures)}

    def rows(self, measures: tuple[Measure, ...]) -> list[dict]:
        return [self._row(measure) for measure in measures if self._has(measure)]

    def _has(self, measure: Measure) -> bool:
        return any(measure.name in column for column in (self.native, self.pcanel, self.kvm))

    def _row(self, measure: Measure) -> dict:
        native, own, kvm = (column.get(measure.name) for column in (self.native, self.pcanel, self.kvm))
        goal = measure.goal
        if measure.goal_of_native is not None and native:
            goal = round(native.median * measure.goal_of_native)
        if measure.goal_of_row is not None and measure.goal_of_row[1] in self.pcanel:
            factor, other = measure.goal_of_row
            goal = round(factor * self.pcanel[other].median, 2)
        if measure.no_more_than_kvm and kvm and (goal is None or kvm.median >= SHORTEST_EXIT):
            goal = kvm.median if goal is None else min(goal, kvm.median)
        return {
            "name": measure.name,
            "cpu": self.cpu,
            "unit": measure.unit,
            "native": native and native.median,
            "pcanel": own and own.median,
            "kvm": kvm and kvm.median,
            "goal": goal,
            "min": own and own.min,
            "max": own and own.max,
        }


def write_json(document: dict, path: Path = JSON) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def met(row: dict) -> bool | None:
    """Whether a row meets its goal; None where it has none or was not measured."""
    if row["goal"] is None or row["pcanel"] is None:
        return None
    return row["pcanel"] <= row["goal"]


def table(document: dict) -> str:
    """The rows for a terminal."""
    lines: list[str] = []
    cpu = None
    for row in document["rows"]:
        if row["cpu"] != cpu:
            cpu = row["cpu"]
            lines += ["", cpu, _line("row", "unit", "native", "pcanel", "min", "max", "KVM", "goal", "met")]
        figures = (_figure(row[key]) for key in ("native", "pcanel", "min", "max", "kvm", "goal"))
        lines.append(_line(row["name"], row["unit"], *figures, _verdict(row)))
    return "\n".join(lines[1:])


def _line(name: str, unit: str, *cells: str) -> str:
    return f"{name:24} {unit:8}" + "".join(f"{cell:>15}" for cell in cells)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,}"


def _verdict(row: dict) -> str:
    return {True: "yes", False: "no", None: ""}[met(row)]


def markdown(document: dict, measures: tuple[Measure, ...]) -> str:
    """The rows for docs/benchmarks.md, with what each measures, and the versions."""
    texts = {measure.name: measure.text for measure in measures}
    lines = ["| row | CPU | what | unit | native | pcanel | least to most | KVM | goal | met |", "|" + "---|" * 10]
    for row in document["rows"]:
        spread = f"{row['min']:,} to {row['max']:,}" if row["min"] is not None else ""
        cells = [
            f"`{row['name']}`",
            row["cpu"],
            texts[row["name"]],
            row["unit"],
            _figure(row["native"]),
            _figure(row["pcanel"]),
        ]
        cells += [spread]
        cells += [_figure(row["kvm"]), _figure(row["goal"]), _verdict(row)]
        lines.append("| " + " | ".join(cells) + " |")
    notes = {measure.name: measure.note for measure in measures if measure.note}
    missed = [(row["name"], row["cpu"]) for row in document["rows"] if met(row) is False]
    if missed:
        lines += ["", "Not met:", ""]
        lines += [f"- `{name}`, {cpu}: {notes.get(name, 'no explanation yet')}" for name, cpu in missed]
    meta = document["meta"]
    versions = "; ".join(f"{key} {value}" for key, value in meta.items() if isinstance(value, str))
    lines += ["", f"Measured with: {versions}."]
    for key, counts in meta.items():
        if isinstance(counts, dict):
            ordered = sorted(counts.items(), key=lambda item: -item[1])
            words = ", ".join(f"{name} {count:,}" for name, count in ordered)
            lines += ["", f"{key.replace('_', ' ')}: {words}."]
    return "\n".join(lines)


def write_document(document: dict, measures: tuple[Measure, ...], path: Path = DOCUMENT) -> None:
    """Replaces the table between the marks. Raises InputError where a mark is missing."""
    replace_table(path, _BEGIN, markdown(document, measures))


def replace_table(path: Path, mark: str, table: str) -> None:
    """Puts a table between `mark` and the mark of a table's end. Raises InputError where one is missing."""
    before, begin, rest = path.read_text().partition(mark)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise InputError(f"{path}: has no {_END if begin else mark!r}")
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}")
