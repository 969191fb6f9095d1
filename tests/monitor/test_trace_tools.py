"""pcanel trace, plot and top on a running monitor."""

import csv
import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time

import pytest
from bench import CODE
from pcanel import cli

LOOP = """
again:
    mov eax, 0x40000000
    xor ecx, ecx
    cpuid
    mov dx, 0x3fd
    in al, dx
    jmp again
"""


@pytest.fixture
def pcanel(bench, capsys):
    """A command of pcanel for this monitor: its status, stdout and stderr."""

    def run(*arguments):
        status = cli.main([*map(str, arguments), "--run", bench.monitor.run.id])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_trace_for_pandas_and_its_pictures(guest, pcanel, tmp_path):
    made = guest(LOOP)
    made.go()
    path = tmp_path / "trace.csv"
    status, out, err = pcanel("trace", made.name, path, "--count", 2000)
    assert status == 0 and "2000 exits, none lost" in out, out + err
    rows = list(csv.DictReader(path.open()))
    assert len(rows) == 2000
    assert list(rows[0]) == [
        "time", "tsc", "guest", "vcpu", "rip", "symbol", "reason", "detail", "verdict", "ticks",
    ]  # fmt: skip
    assert {row["reason"] for row in rows} <= {
        "CPUID", "IO_INSTRUCTION", "EXTERNAL_INTERRUPT", "PREEMPTION_TIMER_EXPIRED",
    }  # fmt: skip
    kinds = [row["reason"] for row in rows if row["reason"] in ("CPUID", "IO_INSTRUCTION")]
    assert all(a != b for a, b in zip(kinds, kinds[1:], strict=False)), "a record is missing"
    first = next(row for row in rows if row["reason"] == "CPUID")
    assert first["detail"] == "leaf 0x40000000, subleaf 0x0" and first["verdict"] == "advance"
    assert CODE < int(first["rip"], 16) < CODE + 64 and int(first["ticks"]) > 100
    times = [float(row["time"]) for row in rows]
    assert times == sorted(times)
    samples = list(csv.DictReader((tmp_path / "trace.guests.csv").open()))
    assert {row["guest"] for row in samples} == {made.name} and int(samples[-1]["guest_ticks"]) > 0
    assert made.eval("vm.exits.recording.size") == 0, "the ring is given back"
    assert cli.main(["plot", str(path)]) == 0
    for kind in ("exits.png", "exits.svg", "guests.png", "guests.svg"):
        assert (tmp_path / f"trace.{kind}").stat().st_size > 5000


def test_a_trace_for_perfetto(guest, pcanel, tmp_path):
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    made = guest(LOOP)
    made.go()
    path = tmp_path / "trace.pftrace"
    assert pcanel("trace", made.name, path, "--count", 300)[0] == 0
    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    tracks = [packet.track_descriptor for packet in trace.packet if packet.HasField("track_descriptor")]
    assert tracks[0].process.process_name == made.name and tracks[1].thread.thread_name == "vCPU 0"
    events = [packet for packet in trace.packet if packet.HasField("track_event")]
    begins = [packet for packet in events if packet.track_event.type == TrackEvent.TYPE_SLICE_BEGIN]
    ends = [packet for packet in events if packet.track_event.type == TrackEvent.TYPE_SLICE_END]
    assert len(begins) == len(ends) == 300
    assert all(a.timestamp <= b.timestamp for a, b in zip(begins, ends, strict=True))
    cpuid = next(packet.track_event for packet in begins if packet.track_event.name == "CPUID")
    assert {note.name: note.string_value for note in cpuid.debug_annotations}["verdict"] == "advance"


def test_a_small_ring_counts_what_is_lost(guest, pcanel, tmp_path):
    made = guest(LOOP)
    made.exec("vm.exits.record(64)")
    made.go()
    status, out, _ = pcanel("trace", made.name, tmp_path / "t.csv", "--seconds", 0.5, "--ring", 64)
    assert status == 0 and " lost (a larger --ring" in out, out
    assert made.eval("vm.exits.recording.size") == 64, "the ring that was there before is there again"


def test_top_shows_guests_and_exits(guest, pcanel):
    made = guest(LOOP)
    made.go()
    status, out, err = pcanel("top", "--count", 1, "--every", 0.3)
    assert status == 0 and not err
    assert made.name in out and "CPUID" in out and "IO_INSTRUCTION" in out and "heap" in out, out


@pytest.fixture
def program(bench):
    """A command of pcanel as a program of its own."""
    started = []

    def start(*arguments, **more):
        words = [sys.executable, "-m", "pcanel.cli", *map(str, arguments), "--run", bench.monitor.run.id]
        started.append(subprocess.Popen(words, **more))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _shown(terminal, text, seconds=30):
    """What the terminal is sent up to a text."""
    said = b""
    end = time.monotonic() + seconds
    while text not in said:
        assert select.select([terminal], [], [], max(end - time.monotonic(), 0))[0], said
        said += os.read(terminal, 65536)
    return said.decode()


def test_top_on_a_terminal_is_left_by_q(bench, guest, program):
    """In 80 columns no number is cut off; guests that come and go do; the terminal is as it was afterwards."""
    made = guest(LOOP)
    made.go()
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    before = termios.tcgetattr(theirs)
    top = program("top", "--every", 0.3, stdin=theirs, stdout=theirs)
    said = _shown(terminal, b"IO_INSTRUCTION")
    said += _shown(terminal, b"IO_INSTRUCTION")
    assert made.name in said and "late, mean" in said and "\N{HORIZONTAL ELLIPSIS}" not in said, said
    bench.exec(f"vms[{made.name!r}].destroy()")
    _shown(terminal, b"m0\x1b[0m guests")
    os.write(terminal, b"q")
    assert top.wait(30) == 0 and termios.tcgetattr(theirs) == before
    os.close(terminal)
    os.close(theirs)


def test_a_trace_ends_with_its_guest(bench, guest, program, tmp_path):
    made = guest(LOOP)
    made.go()
    path = tmp_path / "trace.csv"
    trace = program("trace", made.name, path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert "recording the exits" in trace.stderr.readline()
    time.sleep(0.5)
    bench.exec(f"vms[{made.name!r}].destroy()")
    out, err = trace.communicate(timeout=30)
    assert trace.returncode == 0 and err == f"pcanel: guest {made.name} has been destroyed: the trace ends here\n", err
    assert " exits, " in out and len(path.read_text().splitlines()) > 100


def test_a_person_who_types_is_not_disturbed(bench, guest, pcanel, tmp_path):
    """A line that is half typed stays, and nothing of the questions is seen at the prompt."""
    made = guest(LOOP)
    made.go()
    prompt = bench.monitor.console("repl")
    prompt.send("\r")
    prompt.expect(rb">>> ", 60)
    prompt.send("6 *")
    prompt.expect(rb"6 \*", 60)
    assert pcanel("top", "--count", 12, "--every", 0.5)[0] == 0  # it asks every five seconds
    assert pcanel("trace", made.name, tmp_path / "t.csv", "--count", 100)[0] == 0
    prompt.send(" 7\r")
    assert prompt.expect(rb"((?s:.*?))>>> ", 60)[1].split() == [b"7", b"42"]


def test_bad_input_has_one_line(guest, pcanel, tmp_path, capsys):
    made = guest(LOOP)
    for arguments, text in (
        (("trace", "nobody", tmp_path / "x"), "there is no guest nobody"),
        (("trace", made.name, tmp_path / "x", "--ring", 3), "--ring 3: must be from 64 to 1048576"),
        (("trace", made.name, tmp_path / "x", "--seconds", -1), "--seconds -1: must be more than 0"),
        (("trace", made.name, tmp_path / "no" / "x"), "No such file"),
        (("top", "--every", 0), "--every 0: must be more than 0"),
    ):
        status, _, err = pcanel(*arguments)
        assert status in (1, 2) and text in err and err.count("\n") == 1, err
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("a,b\n1,2\n")
    assert cli.main(["plot", str(wrong)]) == 2
    assert "is no trace of exits" in capsys.readouterr().err
