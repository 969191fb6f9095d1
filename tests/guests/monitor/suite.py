"""Runs the small guests under one monitor and reads their verdicts.

All four are boot modules of one machine. They share COM2, so that the whole of each
one's output is kept: the next is started when the one before has powered itself off.
"""

import contextlib
import os
import re
import time
from pathlib import Path

import vtx
from pcanel.monitor import Monitor
from pcanel.paths import BUILD, ELF, ROOT
from pcanel.symbols import Symbols

NAMES = ("real16", "prot32", "pae", "long64")
BOOT_TIMEOUT = 900  # seconds; the engine nested takes 60 of a whole CPU, the others a few
TIMEOUT = 240  # seconds for one guest, which takes two of a whole CPU
_SUMMARY = re.compile(rb"^SUMMARY: (\d+) tests, (\d+) failures, (\d+) skipped\n", re.MULTILINE)
_REPORT = re.compile("(SKIP|PASS|FAIL|SUMMARY): (?!(SKIP|PASS|FAIL|SUMMARY): )")
_CONSOLE = """
for vm in vms.values():
    vm.console.host = None
vms[{name!r}].console.host = machine.UART(1)
"""
_START = """
with still():
    vms[{name!r}].start()
    vms[{name!r}].memory.write({gpa:#x}, bytes([{shown:d}]))
"""
# The guests come with the monitor's boot and would start by themselves.
HOLD = "import machine\nfor vm in vms.values():\n    vm.power_off()\n"


def image():
    return Path(os.environ.get("PCANEL_ELF") or ELF)


@contextlib.contextmanager
def monitor(cpu, engine=None):
    """A booted monitor with the four guests, none of them running."""
    guests = [ROOT / f"guests/tests/{name}.toml" for name in NAMES]
    engine = engine or vtx.engine()
    with Monitor(engine=engine, cpu=vtx.cpu(cpu), memory=256, guests=guests, image=image()) as running:
        running.wait_booted(BOOT_TIMEOUT)
        running.exec(HOLD)
        _settle(running)
        yield running


def _settle(running):
    """Waits until what the guests printed before they were switched off has come: first the serial line's time, then
    this side's."""
    console = running.console(running.names[1])
    running.exec("import time\ntime.sleep_ms(300)")
    had, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        if len(console.text()) != had:
            had, since = len(console.text()), time.monotonic()
        time.sleep(0.05)


def start(name, passes=False):
    """Code for the prompt that starts a guest; passes: with a line for each check that passes."""
    return _START.format(
        name=name, gpa=Symbols(BUILD / f"guests/tests/{name}/linked.elf")["passes_shown"], shown=passes
    )


def run(running, name, timeout=TIMEOUT, passes=False):
    """Starts a guest and returns the lines that it printed, once it is off."""
    console = running.console(running.names[1])
    before = len(console.text())
    running.exec(_CONSOLE.format(name=name) + start(name, passes))
    running.console("repl").expect(rf"\[{name}\] powered off by the guest", timeout)
    console.expect(_SUMMARY, 30)
    text = console.text()[before:]
    text = text[_REPORT.search(text).start() :]  # what was switched off before may end late, in mid-line
    return text[: text.rindex("SUMMARY: ")].splitlines() + [text[text.rindex("SUMMARY: ") :].splitlines()[0]]


def check(lines, passes=False):
    """Asserts that no check failed and that some passed; passes: that each of those has a line."""
    failed = [line for line in lines if line.startswith("FAIL: ")]
    assert not failed
    tests, failures, skipped = map(int, _SUMMARY.match(lines[-1].encode() + b"\n").groups())
    assert failures == 0
    assert tests - skipped > 200, lines[-20:]
    assert sum(line.startswith("SKIP: ") for line in lines) == skipped
    assert sum(line.startswith("PASS: ") for line in lines) == (tests - skipped if passes else 0)
