"""Counters of all vCPUs, sampled while a trace goes on: CPU use and latency over time."""

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pcanel.ram.guest import Memory
from pcanel.tracing.frames import Facts, Frame


@dataclass(slots=True)
class Sample:
    """Sums since the guest was made, in host TSC ticks. timed: entries for a timer's deadline, late: the sum of their
    lateness, latest: the longest. time: seconds of the host TSC."""

    time: float
    guest: str
    vcpu: int
    guest_ticks: int
    host_ticks: int
    timed: int
    late: int
    latest: int


def take(memory: Memory, facts: Facts) -> list[Sample]:
    """One of each vCPU. The time is that of the last entry of any."""
    frames = [
        (guest.name, number, Frame(memory, hpa))
        for guest in facts.guests
        for number, (hpa, _) in enumerate(guest.vcpus)
    ]
    frames = [each for each in frames if each[2].starts]  # those of guests that have not been destroyed
    now = max([frame.entry_tsc for _, _, frame in frames], default=facts.tsc) / facts.hz
    return [
        Sample(now, name, number, frame.guest_ticks, frame.host_ticks, *frame.timed()) for name, number, frame in frames
    ]


def file_of(path: Path) -> Path:
    """Where the samples of a trace lie: beside it."""
    return path.with_suffix(".guests.csv")


def write(path: Path, samples: list[Sample]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)
