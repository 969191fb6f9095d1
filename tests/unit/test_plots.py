"""pcanel plot and the counters of a trace, without an engine."""

import pytest
from pcanel import cli
from pcanel.tracing.perfetto_file import pairs
from pcanel.tracing.rows import COLUMNS
from pcanel.tracing.samples import Sample

_HEAD = ",".join(COLUMNS)
_ROW = "1.5,150000000,g,0,0x1000,,CPUID,leaf 0x0,advance,300"
_SAMPLES = "time,guest,vcpu,guest_ticks,host_ticks,timed,late,latest"


def _sample(time, ticks):
    return Sample(time, "g", 0, ticks, 0, 0, 0, 0)


def test_use_of_a_cpu_is_not_divided_by_the_time_between_two_entries():
    """A sample's time is that of the last entry: two may be microseconds apart, with all of the use in between."""
    samples = [_sample(time, ticks) for time, ticks in ((1, 0), (1.5, 0), (1.500001, 60), (2, 70), (2, 70))]
    assert [(before.time, after.time) for before, after in pairs(samples)] == [(1, 1.5), (1.5, 2)]


@pytest.mark.parametrize(
    ("exits", "samples", "said"),
    [
        (b"", "", "trace.csv is no trace of exits"),
        (b"\xf7\x01\n", "", "trace.csv is no trace of exits"),
        (b"a\0b", "", "trace.csv is no trace of exits"),
        (f"{_HEAD}\n", "", "trace.csv has no exits"),
        (f"{_HEAD}\n{_ROW}\n{_ROW[:30]}", "", "trace.csv: line 3 is no exit: was the file cut off?"),
        (f"{_HEAD}\n{_ROW}\n{_ROW.replace('1.5', 'nan')}\n", "", "trace.csv: line 3 is no exit"),
        (f"{_HEAD}\n{_ROW.replace('1.5', '0')}\n", "", "trace.csv: line 2 is no exit"),
        (f"{_HEAD}\n{_ROW}\n", f"{_SAMPLES}\n1.5,g,0,1", "trace.guests.csv: line 2 is no sample"),
    ],
)
def test_a_broken_file_has_one_line(tmp_path, capsys, exits, samples, said):
    path = tmp_path / "trace.csv"
    path.write_bytes(exits if isinstance(exits, bytes) else exits.encode())
    if samples:
        (tmp_path / "trace.guests.csv").write_text(samples)
    assert cli.main(["plot", str(path)]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1, told


def test_a_trace_of_one_exit_is_drawn(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(f"{_HEAD}\n{_ROW}\n")
    assert cli.main(["plot", str(path)]) == 0
    assert (tmp_path / "trace.exits.svg").stat().st_size > 5000
