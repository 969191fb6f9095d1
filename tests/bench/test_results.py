"""The bench without an engine: the guest's lines, bench.json, the tables."""

import json
import re
from dataclasses import replace

import pytest
from pcanel.bench import conditions, debian, guest, kvm, nested, profile, prompt
from pcanel.bench.guest import Row
from pcanel.bench.measures import BARE, EXITS, NESTED, Measure
from pcanel.bench.results import Results, markdown, met, table, write_document, write_json
from pcanel.errors import InputError, PcanelError
from pcanel.paths import ROOT

MEASURES = (
    Measure("cpuid", "CPUID", 485, note="the reason"),
    Measure("boot", "a boot", goal_of_native=1.5),
    Measure("never", "was not measured", 1),
)
MARKS = "<!-- the table, from build/bench.json -->\nold\n<!-- end of the table -->\nafter\n"


@pytest.fixture
def document():
    results = Results({"engine": "bochs"}, "haswell", native={"boot": Row(1000, 1000, 1000)})
    results.pcanel = {"cpuid": Row(960, 950, 2000), "boot": Row(1400, 1400, 1400)}
    results.kvm = {"cpuid": Row(970, 970, 1000)}
    return results.document(MEASURES)


def test_lines_of_the_guest():
    text = "empty 2\nrow cpuid median 5 min 4 max 9 rounds 100\nskip vmcall no monitor is here\nexitbench: done\n"
    assert guest.parse(text) == {"cpuid": Row(5, 4, 9)}
    assert guest.skipped(text) == {"vmcall": "no monitor is here"}


def test_a_failed_guest_is_no_result():
    with pytest.raises(PcanelError, match="exception 14"):
        guest.parse("row cpuid median 5 min 4 max 9 rounds 1\nfailed: exception 14 error 0 at 1\n")


def test_json(document, tmp_path):
    write_json(document, tmp_path / "bench.json")
    read = json.loads((tmp_path / "bench.json").read_text())
    assert read["meta"] == {"engine": "bochs"}
    keys = ("name", "cpu", "unit", "native", "pcanel", "kvm", "goal", "min", "max")
    cpuid = ("cpuid", "haswell", "ticks", None, 960, 970, 485, 950, 2000)
    boot = ("boot", "haswell", "ticks", 1000, 1400, None, 1500, 1400, 1400)
    assert read["rows"] == [dict(zip(keys, row, strict=True)) for row in (cpuid, boot)]


def test_goals(document):
    assert [met(row) for row in document["rows"]] == [False, True]
    lines = table(document).splitlines()
    assert lines[0] == "haswell"
    assert lines[2].split() == ["cpuid", "ticks", "960", "950", "2,000", "970", "485", "no"]


@pytest.mark.parametrize("kvm_ticks, goal", [(1100, 1100), (1300, 1200), (None, 1200)])
def test_a_goal_by_native_and_by_kvm(kvm_ticks, goal):
    measure = Measure("boot", "a boot", goal_of_native=1.2, no_more_than_kvm=True)
    results = Results({}, "haswell", native={"boot": Row(1000, 1000, 1000)}, pcanel={"boot": Row(1150, 1150, 1150)})
    if kvm_ticks:
        results.kvm = {"boot": Row(kvm_ticks, kvm_ticks, kvm_ticks)}
    [row] = results.document((measure,))["rows"]
    assert row["goal"] == goal
    assert met(row) == (goal == 1200)


def test_a_figure_of_kvm_that_is_no_exit_replaces_no_goal():
    measure = Measure("clts", "CLTS", 1900, no_more_than_kvm=True)
    results = Results({}, "haswell", pcanel={"clts": Row(1000, 1000, 1000)}, kvm={"clts": Row(1, 1, 1)})
    assert results.rows((measure,))[0]["goal"] == 1900
    assert results.rows((replace(measure, goal=None),))[0]["goal"] == 1


def test_rows_of_two_cpus_stand_under_each(document):
    document["rows"] += Results({}, "penryn", pcanel={"cpuid": Row(7, 7, 7)}).rows(MEASURES)
    assert table(document).splitlines()[4:6] == ["", "penryn"]
    assert "| `cpuid` | penryn | CPUID | ticks |" in markdown(document, MEASURES)
    assert {measure.name for measure in BARE} <= {measure.name for measure in EXITS}


def test_the_document_is_written_between_its_marks(document, tmp_path):
    path = tmp_path / "benchmarks.md"
    path.write_text("before\n" + MARKS)
    write_document(document, MEASURES, path)
    text = path.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| `boot` | haswell | a boot | ticks | 1,000 | 1,400 |" in text
    write_document(document, MEASURES, path)
    assert path.read_text() == text
    path.write_text("no marks")
    with pytest.raises(InputError, match="has no"):
        write_document(document, MEASURES, path)


def test_each_row_of_the_guest_is_in_the_table():
    rows = set()
    for source in (ROOT / "guests/exitbench").glob("*.c"):
        rows.update(re.findall(r"^    ROW\((\w+)", source.read_text(), re.MULTILINE))
    assert {variant.row for variant in conditions.VARIANTS.values()} <= rows
    assert rows | {*conditions.VARIANTS} == {measure.name for measure in EXITS}


def test_each_nested_row_is_in_the_table():
    assert {measure.name for measure in NESTED} == {f"nested_{row}{of}" for row in nested.ROWS for of in ("", "_exits")}


def test_conditions_have_passes_of_their_own():
    names = ["cpuid", "cpuid_watch", "in_pic_watch", "rdmsr_value"]
    assert conditions.plain(names) == ["cpuid"]
    assert conditions.rows_under(conditions.WATCH, names) == {"cpuid": "cpuid_watch", "in_pic": "in_pic_watch"}
    assert conditions.rows_of(names) == ["cpuid", "in_pic", "rdmsr"]
    figures = {"in_uart": Row(2, 2, 2), "rdmsr": Row(1, 1, 1)}
    assert conditions.peers(figures)["in_pic_value"] == Row(2, 2, 2)
    assert conditions.without_conditions(figures)["rdmsr_value"] == Row(1, 1, 1)


def test_order_and_sums_of_a_profile():
    names = ["a", "a", "b", "a"]
    assert profile.in_order(names) == [("a", 2), ("b", 1), ("a", 1)]
    assert profile.summed(names) == [("a", 3, 2), ("b", 1, 1)]


def test_a_switch_is_between_two_guests():
    """Guest 0 stops at 100 and is back at 9000; guest 1 goes on at 160, has an exit at 500, and stops at 8900."""
    text = "gap 0 100 9000\ngap 1 20 160\ngap 1 500 540\ngap 1 8900 99999\n"
    assert prompt.switches(text) == Row(80, 60, 100)
    with pytest.raises(PcanelError, match="no guest"):
        prompt.switches("gap 0 100 160\ngap 1 20000000 20000060\n")


def test_statistics_of_kvm():
    assert kvm.statistics("first: x\nkvm: entered_at 12\nkvm: exits 7\n") == {"entered_at": 12, "exits": 7}


def test_exits_by_reason_stand_below_the_table(document):
    document["meta"]["linux_boot_exits_monitored"] = {"HLT": 3, "CPUID": 1664}
    assert markdown(document, MEASURES).endswith("linux boot exits monitored: CPUID 1,664, HLT 3.")


def test_what_misses_its_goal_is_explained(document):
    text = markdown(document, MEASURES)
    assert "Not met:\n\n- `cpuid`, haswell: the reason\n" in text
    assert "`boot`, haswell:" not in text
    document["rows"][1]["pcanel"] = 1501
    assert "- `boot`, haswell: no explanation yet\n" in markdown(document, MEASURES)


def test_a_boot_by_the_log_of_bochs():
    """From the BIOS's jump to the prompt's last character, whatever else the line has and whenever it has taken it."""
    said = b"\r\ndebian GNU\r\ndebian login: "
    write = "{:011}d[SER   ] com1 register write to  address: 0x03f8 = {:#04x}"
    lines = [write.format(100 + 10 * n, c) for n, c in enumerate(said)]
    lines.insert(3, "00000000125d[SER   ] com1: write byte [0x0a]")
    lines.insert(0, "00000000090i[BIOS  ] Booting from 0000:7c00")
    log = "\n".join([*lines, "00000000999d[SER   ] com1: write byte [0x20]", ""])
    assert debian.ticks(log) == 100 + 10 * (len(said) - 1) - 90
    with pytest.raises(PcanelError, match="not once"):
        debian.ticks(log + lines[0] + "\n")
    with pytest.raises(PcanelError, match="prompt"):
        debian.ticks("\n".join(lines[:-1]) + "\n")
