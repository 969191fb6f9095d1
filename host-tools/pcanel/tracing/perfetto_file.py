"""A trace as Perfetto's protobuf, which https://ui.perfetto.dev and trace_processor open.

A guest is a process, each of its vCPUs a thread. An exit is a slice from the exit to the next entry, with RIP, symbol,
detail and verdict as its arguments; between slices the guest runs. Counters: each guest's CPU use and lateness.
"""

from collections.abc import Iterable
from pathlib import Path

from pcanel.tracing.rows import Row
from pcanel.tracing.samples import Sample

_SEQUENCE = 1
_NS = 1_000_000_000
_LEAST = 0.05  # seconds


class Writer:
    """Packets, one by one, into a file."""

    def __init__(self, path: Path):
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos  # takes half a second
        from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

        self._file = path.open("wb")
        self._builder = StreamingTraceProtoBuilder(self._file)
        self._event = protos.TrackEvent
        self._tracks: dict[tuple, int] = {}
        self._guests: dict[str, int] = {}

    def close(self) -> None:
        self._file.close()

    def _track(self, *key) -> int:
        """The number of a track: ("guest", name), ("vcpu", name, number) or ("counter", name, what)."""
        if key in self._tracks:
            return self._tracks[key]
        kind, name, *rest = key
        parent = 0 if kind == "guest" else self._track("guest", name)
        number = self._tracks[key] = len(self._tracks) + 1
        packet = self._builder.create_packet()
        descriptor = packet.track_descriptor
        descriptor.uuid = number
        if kind == "guest":
            self._guests[name] = len(self._guests) + 1
            descriptor.process.pid = self._guests[name]
            descriptor.process.process_name = name
        elif kind == "vcpu":
            descriptor.parent_uuid = parent
            descriptor.thread.pid = self._guests[name]
            descriptor.thread.tid = self._guests[name] * 1000 + rest[0]
            descriptor.thread.thread_name = f"vCPU {rest[0]}"
        else:
            descriptor.parent_uuid = parent
            descriptor.name = rest[0]
            descriptor.counter.SetInParent()
        self._builder.write_packet(packet)
        return number

    def _packet(self, time: float, kind: int, track: int):
        packet = self._builder.create_packet()
        packet.timestamp = round(time * _NS)
        packet.trusted_packet_sequence_id = _SEQUENCE
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet

    def exits(self, rows: Iterable[Row], hz: int) -> None:
        for row in rows:
            track = self._track("vcpu", row.guest, row.vcpu)
            packet = self._packet(row.tsc / hz, self._event.TYPE_SLICE_BEGIN, track)
            packet.track_event.name = row.reason
            packet.track_event.categories.append("exit")
            for name, value in (("symbol", row.symbol), ("detail", row.detail), ("verdict", row.verdict)):
                if value:
                    annotation = packet.track_event.debug_annotations.add()
                    annotation.name, annotation.string_value = name, value
            annotation = packet.track_event.debug_annotations.add()
            annotation.name, annotation.pointer_value = "rip", row.rip
            self._builder.write_packet(packet)
            end = self._packet((row.tsc + row.ticks) / hz, self._event.TYPE_SLICE_END, track)
            self._builder.write_packet(end)

    def counters(self, samples: list[Sample], hz: int) -> None:
        """CPU use in percent, and the mean lateness of entries for timers in microseconds, between two samples."""
        for before, after in pairs(samples):
            span = after.time - before.time
            used = after.guest_ticks + after.host_ticks - before.guest_ticks - before.host_ticks
            self._counter(after, "CPU use, percent", 100 * used / hz / span)
            if after.timed > before.timed:
                late = (after.late - before.late) / (after.timed - before.timed)
                self._counter(after, "mean latency, us", 1e6 * late / hz)

    def _counter(self, sample: Sample, what: str, value: float) -> None:
        track = self._track("counter", sample.guest, f"{what} (vCPU {sample.vcpu})")
        packet = self._packet(sample.time, self._event.TYPE_COUNTER, track)
        packet.track_event.double_counter_value = value
        self._builder.write_packet(packet)


def pairs(samples: list[Sample]) -> Iterable[tuple[Sample, Sample]]:
    """(before, after) of each two samples of a vCPU that follow each other, _LEAST apart: the time of a sample is that
    of the last entry, and what is divided by the time between two entries is no use of a CPU."""
    last: dict[tuple[str, int], Sample] = {}
    for sample in samples:
        before = last.setdefault((sample.guest, sample.vcpu), sample)
        if sample.time - before.time >= _LEAST:
            yield before, sample
            last[sample.guest, sample.vcpu] = sample
