"""Exits as rows: what a record says, for CSV, Perfetto and plots."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from types import SimpleNamespace

from pcanel.vmm_import import importable

with importable():
    from vmm.insight.exits import words
    from vmm.vtx import reasons, recording

_NAMES = reasons.names()


@dataclass(slots=True)
class Row:
    """One exit. time: seconds of the host TSC since the machine's start; ticks: of the exit, host TSC."""

    time: float
    tsc: int
    guest: str
    vcpu: int
    rip: int
    symbol: str
    reason: str
    detail: str
    verdict: str
    ticks: int

    def texts(self) -> dict[str, object]:
        """The row for a CSV file: RIP in hexadecimal, the time to the nanosecond."""
        return {**asdict(self), "rip": f"{self.rip:#x}", "time": f"{self.time:.9f}"}


COLUMNS = [field.name for field in fields(Row)]


def rows(data: bytes, hz: int, guest: str, vcpu: int) -> Iterator[Row]:
    """The rows of records as they lie in a ring."""
    for values in struct.iter_unpack(recording.RECORD_FORMAT, data):
        tsc, rip, qualification, rax, rcx, rdx, gpa, ticks, intr_info, number, answer, _, _, _ = values
        if ticks == recording.UNKNOWN_DURATION:
            ticks = 0
        record = SimpleNamespace(
            qualification=qualification, rax=rax, rcx=rcx, rdx=rdx, gpa=gpa, intr_info=intr_info, number=number
        )
        reason = _NAMES.get(number, str(number))
        detail, verdict = words.detail(record), words.verdict(answer)
        yield Row(tsc / hz, tsc, guest, vcpu, rip, "", reason, detail, verdict, ticks)


def named(found: Iterable[Row], names: dict[tuple[str, int], str]) -> list[Row]:
    """The rows in the order of time, with symbols. names: {(guest, RIP): symbol}."""
    ordered = sorted(found, key=lambda row: row.tsc)
    for row in ordered:
        row.symbol = names.get((row.guest, row.rip), "")
    return ordered
