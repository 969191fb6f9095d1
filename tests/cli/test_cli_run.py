"""A monitor under QEMU TCG: run, exec, status, stop, mpremote, and how runs end."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pcanel.paths import ELF
from pcanel.symbols import Symbols

MPREMOTE = Path(sys.executable).with_name("mpremote")
QEMU = ("run", "--engine", "qemu", "--headless")


def wait_for(condition, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def child_of(process):
    """The engine: the one child of a `pcanel run`."""
    return int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())


@pytest.fixture
def running(pcanel, runs):
    """Starts a monitor in the background; returns the process and its published state."""
    processes = []

    def start(*arguments):
        count = len(processes)
        process = pcanel.start(*QEMU, *arguments)
        processes.append(process)

        def published():
            assert process.poll() is None, process.stderr.read()
            states = [json.loads(path.read_text()) for path in sorted(runs.glob("*/run.json"))]
            return [state for state in states if state["booted"]][count:]

        wait_for(published)
        return process, published()[0]

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)


def test_exec(pcanel):
    done = pcanel(*QEMU, "--exec", "print(1 + 2)\nprint('äöü')")
    assert (done.returncode, done.stdout) == (0, "3\näöü\n"), done.stderr
    assert re.search(r"engine qemu, CPU model \S+ \(.+\)", done.stderr)


def test_a_log_that_cannot_grow_ends_no_run(pcanel):
    """A limit on the size of files stands for the full disk."""
    small = (64 << 10, 64 << 10)
    done = pcanel(
        *QEMU, "--exec", "for i in range(2000): print(i, 'z' * 60)",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, small),
    )  # fmt: skip
    assert (done.returncode, done.stdout.count("z" * 60)) == (0, 2000), done.stderr
    told = [line for line in done.stderr.splitlines() if "repl.log" in line]
    assert len(told) == 1 and told[0].endswith("repl.log: File too large; the run goes on without this log")
    assert "Traceback" not in done.stderr


def test_what_ends_by_sys_exit_has_just_ended(pcanel, running):
    running()
    assert pcanel("exec", "kept = 5").returncode == 0
    for code, status, said in (
        ("import sys; print(1); sys.exit()", 0, ""),
        ("raise SystemExit(0)", 0, ""),
        ("import sys; print(1); sys.exit(3)", 1, "pcanel exec: SystemExit: 3\n"),
        ("import sys; sys.exit('a > b')", 1, "pcanel exec: SystemExit: a > b\n"),
    ):
        done = pcanel("exec", code)
        assert (done.returncode, done.stderr) == (status, said), code
        assert done.stdout == ("1\n" if "print" in code else "")
        assert pcanel("exec", "print(kept)").stdout == "5\n"
    few = pcanel.start("exec", "for i in range(3000): print(i)")
    assert few.stdout.readline() == "0\n"
    few.stdout.close()  # as `head -1`
    assert (few.wait(60), few.stderr.read()) == (128 + signal.SIGPIPE, "")
    done = pcanel("exec", "import machine; machine.soft_reset()")
    assert (done.returncode, "soft reboot" in done.stderr) == (1, True)
    assert "NameError" in pcanel("exec", "print(kept)").stderr


def test_exec_that_raises(pcanel):
    done = pcanel(*QEMU, "--exec", "print('before'); 1/0")
    assert (done.returncode, done.stdout) == (1, "before\n")
    assert "ZeroDivisionError" in done.stderr


def test_exec_that_never_ends(pcanel):
    done = pcanel(*QEMU, "--exec", "while True: pass", "--timeout", "12")
    assert done.returncode == 1
    assert "has not ended" in done.stderr
    assert "--- repl (" in done.stderr


def test_until(pcanel):
    done = pcanel(*QEMU, "--until", r"^MicroPython v\d", "--on", "repl", "--timeout", "60")
    assert done.returncode == 0, done.stderr


def test_until_anywhere(pcanel):
    done = pcanel(*QEMU, "--until", ">>> $", "--timeout", "60")
    assert done.returncode == 0, done.stderr


def test_exec_and_then_until(pcanel):
    code = "import machine; machine.UART(1).write('to the guest')"
    done = pcanel(*QEMU, "--exec", code, "--until", "to the guest", "--on", "com2", "--timeout", "60")
    assert done.returncode == 0, done.stderr


def test_until_times_out_with_the_tails(pcanel):
    done = pcanel(*QEMU, "--until", "no such words", "--timeout", "6")
    assert done.returncode == 1
    assert "no console has shown 'no such words' in time" in done.stderr
    for name in ("repl", "com2", "com3", "engine"):
        assert f"--- {name} (" in done.stderr
    assert "MicroPython" in done.stderr


def test_until_does_not_wait_for_a_guest_that_cannot_run(pcanel, tmp_path):
    (tmp_path / "tiny.bin").write_bytes(b"\xf4")
    guest = tmp_path / "tiny.toml"
    guest.write_text('memory = "1M"\nprotocol = "flat"\nkernel = "tiny.bin"\naddress = 0x7c00\n')
    start = time.monotonic()
    done = pcanel(*QEMU, "--cpu", "qemu64", guest, "--until", "never", "--timeout", "100")
    assert time.monotonic() - start < 60
    assert done.returncode == 1
    assert "pcanel run: guest tiny: NoVmx: no guest can run: " in done.stderr
    assert "--- repl (" in done.stderr


def test_engine_that_ends(pcanel):
    done = pcanel("run", "--engine", "qemu", "--cpu", "no-such-model", "--exec", "1")
    assert done.returncode == 1
    assert "no-such-model" in done.stderr


def test_a_panic_ends_the_run_at_once(pcanel, tmp_path):
    gate = Symbols(ELF)["idt"] + 16 * 14  # with the gate of #PF gone, a page fault is a double fault
    (tmp_path / "boot.py").write_text(f"import machine\nmachine.mem32[{gate} + 4] = 0\nmachine.mem8[0]\n")
    words = ("--module", f"file:/boot.py={tmp_path}/boot.py", "--until", "never", "--timeout", "100")
    start = time.monotonic()
    done = pcanel(*QEMU, *words)
    assert time.monotonic() - start < 60
    assert done.returncode == 1
    assert "PANIC: #DF" in done.stderr.partition("--- repl")[0]
    assert "The machine is stopped." in done.stderr


RESET = "QEMU: the machine was reset from inside (guest-reset)"


def test_a_reset_ends_a_run_that_waits_for_code(pcanel):
    start = time.monotonic()
    done = pcanel(*QEMU, "--exec", "print('before')\nimport machine; machine.reset()")
    assert time.monotonic() - start < 60
    assert done.returncode == 1
    assert done.stdout.startswith("before\n")
    assert f"pcanel run: {RESET}: the code has not ended" in done.stderr


def test_a_reset_ends_a_run_that_waits_for_a_line(pcanel, tmp_path):
    (tmp_path / "boot.py").write_text("import machine\nmachine.reset()\n")
    words = ("--module", f"file:/boot.py={tmp_path}/boot.py", "--until", "never", "--timeout", "100")
    start = time.monotonic()
    done = pcanel(*QEMU, *words)
    assert time.monotonic() - start < 60
    assert done.returncode == 1
    assert f"pcanel run: {RESET}: 'never' never showed\n" in done.stderr


def test_a_run_that_waits_for_nothing_goes_on_after_a_reset(pcanel, running):
    process, state = running()
    log = Path(state["consoles"]["repl"]["log"])
    for boots in (2, 3):
        subprocess.run([MPREMOTE, "connect", state["consoles"]["repl"]["pty"], "reset"], check=True, timeout=60)
        wait_for(lambda boots=boots: log.read_bytes().count(b"Pcanel/Py on ") == boots)
        wait_for(lambda: log.read_bytes().endswith(b">>> "))
        time.sleep(1.5)  # resets in quick succession are one: the firmware resets again
    assert pcanel("exec", "print(6 * 7)").stdout == "42\n"
    assert pcanel("stop").returncode == 0
    said = process.communicate(timeout=20)[1]
    assert said.count(f"pcanel: {RESET}; the monitor boots again\n") == 2


def test_modules_reach_the_file_system(pcanel, tmp_path):
    (tmp_path / "boot.py").write_text("print('boot.py is here')\n")
    (tmp_path / "a,b.txt").write_text("with a comma")
    done = pcanel(
        *QEMU,
        *("--module", f"file:/boot.py={tmp_path}/boot.py"),
        *("--module", f"file:/lib/a,b.txt={tmp_path}/a,b.txt"),
        *("--exec", "print(open('/lib/a,b.txt').read())"),
        *("--until", "^boot.py is here$", "--on", "repl", "--timeout", "60"),
    )
    assert (done.returncode, done.stdout) == (0, "with a comma\n"), done.stderr


def test_command_line_of_the_monitor(pcanel):
    code = "import multiboot; print('heap=8M' in multiboot.cmdline().split())"
    done = pcanel(*QEMU, "--option", "heap=8M", "--exec", code)
    assert done.stdout == "True\n", done.stderr


def test_a_run_from_outside(pcanel, running):
    process, state = running()
    status = pcanel("status").stdout
    assert f"run {state['id']}: engine qemu" in status
    assert state["consoles"]["repl"]["socket"] in status and state["consoles"]["repl"]["pty"] in status

    assert pcanel("exec", "x = 40").returncode == 0
    assert pcanel("exec", "print(x + 2)").stdout == "42\n"
    done = pcanel("exec", "print(x)\nraise ValueError('on purpose')")
    assert (done.returncode, done.stdout) == (1, "40\n")
    assert "ValueError: on purpose" in done.stderr
    assert pcanel("exec", "--timeout", "3", "while True: pass").returncode == 1
    log = Path(state["consoles"]["repl"]["log"])
    assert "KeyboardInterrupt" in log.read_text(errors="replace")
    assert pcanel("exec", "print('still there')").stdout == "still there\n"

    assert pcanel("console", "linux").returncode == 2
    typed = subprocess.run(
        [sys.executable, "-m", "pcanel.cli", "repl"],
        input="print(6 * 7)\n", text=True, capture_output=True, env=pcanel.environment, timeout=60,
    )  # fmt: skip
    assert "42" in typed.stdout

    done = pcanel("stop")
    assert done.returncode == 0
    assert process.wait(20) == 128 + signal.SIGTERM
    assert pcanel("status").stdout == "no monitor is running\n"
    assert "MicroPython" in log.read_text(errors="replace")


def test_mpremote(running, tmp_path):
    _, state = running()
    connect = [MPREMOTE, "connect", state["consoles"]["repl"]["pty"]]
    script = tmp_path / "script.py"
    script.write_text("import os\nprint('ran', os.listdir('/'))\n")

    def mpremote(*words):
        done = subprocess.run([*connect, *map(str, words)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert mpremote("resume", "exec", "print(1 + 1)") == "2\n"
    assert "ran" in mpremote("resume", "run", script)
    mpremote("resume", "cp", script, ":/script.py")
    assert mpremote("resume", "cat", ":/script.py") == script.read_text()
    assert "ran" in mpremote("mount", tmp_path, "exec", "import script")
    mpremote("resume", "exec", "x = 1")
    mpremote("soft-reset")
    assert mpremote("resume", "exec", "print('x' in globals())") == "False\n"
    log = Path(state["consoles"]["repl"]["log"])
    boots = log.read_bytes().count(b"Pcanel/Py on ")
    mpremote("reset")
    wait_for(lambda: log.read_bytes().count(b"Pcanel/Py on ") > boots)
    wait_for(lambda: log.read_bytes().endswith(b">>> "))
    assert mpremote("exec", "print(7)") == "7\n"


def test_two_runs(pcanel, running):
    _, one = running()
    _, two = running()
    assert one["id"] != two["id"]
    done = pcanel("exec", "1")
    assert done.returncode == 2
    assert "--run" in done.stderr
    for state in (one, two):
        assert pcanel("exec", "--run", state["id"], f"print('{state['id']}')").stdout == f"{state['id']}\n"


def test_the_engine_dies_with_its_owner(pcanel, running):
    process, state = running()
    engine = child_of(process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=10)
    wait_for(lambda: not Path(f"/proc/{engine}").exists(), 10)
    assert pcanel("status").stdout == "no monitor is running\n"


def test_the_owner_notices_a_dead_engine(pcanel, running):
    process, _ = running()
    engine = child_of(process)
    os.kill(engine, signal.SIGKILL)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "qemu ended by signal 9" in said
    assert "--- repl (" in said
