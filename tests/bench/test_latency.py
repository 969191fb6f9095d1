"""The latency bench: what the real-time guest reports, and the table made of it."""

import pytest
from pcanel.bench import latency
from pcanel.bench.results import replace_table
from pcanel.errors import PcanelError

REPORT = """tick 1000 Hz, divisor 1193, 99987 TSC ticks; 70000 interrupts, 0 lost
latency     count      min   median   99.9 %      max
handler     60001     1341     2816    30208    125789
task        60000     3151     4352    52224   174253
deadlines inexact by 17
"""


def test_a_report_becomes_a_row():
    row = latency.parse("pcanel", "busy", REPORT)
    assert (row.count, row.lost, row.min, row.max) == (60001, 0, 1341, 125789)
    assert (row.median, row.permille_999) == (2816, 30208)
    assert (row.task_median, row.task_max, row.inexact) == (4352, 174253, 17)


def test_a_guest_that_has_not_reported_is_an_error():
    with pytest.raises(PcanelError, match="KVM, busy: the real-time guest has not reported"):
        latency.parse("KVM", "busy", "exception 13")


def test_the_table_says_whether_the_goal_is_met(tmp_path):
    rows = [latency.parse(system, "busy", REPORT) for system in ("pcanel", "KVM")]
    rows.append(latency.parse("pcanel", "alone", REPORT.replace("125789", "10000")))
    text = latency.table(latency.document({"bochs": "2.7"}, rows, 1159415))
    lines = [line for line in text.splitlines() if line.startswith(("| pcanel", "| KVM"))]
    assert [line.split("|")[-2].strip() for line in lines] == ["no", "", "yes"]
    assert "1,159,415" in text and "bochs 2.7" in text
    document = tmp_path / "latency.md"
    document.write_text("before\n<!-- here -->\nold\n<!-- end of the table -->\nafter\n")
    replace_table(document, "<!-- here -->", text)
    assert "old" not in document.read_text() and lines[0] in document.read_text()


def test_the_guest_reports_under_the_monitor():
    with latency.Monitored(None, interrupts=300) as bench:
        row = bench.run("alone")
        assert row.lost == 0
        assert row.count >= 300
        assert row.min <= row.median <= row.permille_999 <= row.max < 1_000_000
        assert row.collections >= 0 and row.waited < latency.GOALS["max"]
        assert bench.pause() > 0
