"""QMP: QEMU is watched and steered, and what the machine does to itself ends a run with one line."""

import time

import pytest
from pcanel.errors import PcanelError
from pcanel.monitor import Monitor
from pcanel.paths import ELF
from pcanel.symbols import Symbols


@pytest.fixture
def running():
    with Monitor(engine="qemu", memory=128) as monitor:
        monitor.wait_booted(120)
        yield monitor


def does(monitor, code):
    """Types a line that the machine does not come back from."""
    monitor.console("repl").send(b"\x05" + code.replace("\n", "\r").encode() + b"\x04")


def ending(monitor, timeout=30):
    deadline = time.monotonic() + timeout
    while monitor.engine.ended() is None:
        assert time.monotonic() < deadline, monitor.tails()
        time.sleep(0.1)
    return monitor.engine.ended()


def test_steering(running, tmp_path):
    assert running.engine.status() == "running"
    running.engine.screendump(tmp_path / "screen.ppm")
    assert (tmp_path / "screen.ppm").read_bytes()[:2] == b"P6"
    hpa, size = running.eval("__import__('multiboot').image()")
    running.engine.save_memory(tmp_path / "memory", hpa, size)
    assert b"MicroPython" in (tmp_path / "memory").read_bytes()
    running.console("repl").expect(">>> ", 10)
    running.engine.reset()
    running.console("repl").expect("^MicroPython v", 60)
    assert "RESET" in [event["event"] for event in running.engine.events()]
    assert running.engine.ended() is None  # we asked for it


def test_a_refused_command_is_an_error(running, tmp_path):
    with pytest.raises(PcanelError, match="QEMU's monitor: "):
        running.engine.save_memory(tmp_path / "no/such/directory", 0, 4096)
    assert running.engine.status() == "running"


def test_power_off_from_inside(running):
    does(running, "import cpu; cpu.outw(0x604, 0x2000)")  # PM1a_CNT: SLP_EN, S5
    assert "QEMU: the machine was switched off from inside (guest-shutdown)" in ending(running)


def test_panic(running, tmp_path):
    """The machine stands still and can be looked into."""
    gate = Symbols(ELF)["idt"] + 16 * 14 + 4  # with the gate of #PF gone, a page fault is a double fault
    does(running, f"import machine\nmachine.mem32[{gate}] = 0\nmachine.mem8[0]\n")
    assert ending(running) == "QEMU: the monitor has panicked (pause)"
    assert running.engine.status() == "guest-panicked"
    assert running.failure().startswith("PANIC: #DF")
    running.engine.save_memory(tmp_path / "memory", gate, 4)
    assert (tmp_path / "memory").read_bytes() == bytes(4)
