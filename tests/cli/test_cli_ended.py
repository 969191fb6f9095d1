"""A command that is told to end ends the programs that it has started, with all that they have started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 120  # seconds

# Stands in for mmdebstrap: a program that waits for another, and says which ones they are. {trap}: on SIGTERM.
PROGRAM = """#!/bin/sh
trap '{trap}' TERM
sleep 1000 &
echo $$ $! > {pids}.new
mv {pids}.new {pids}
wait
wait
"""
MAKE = """
import signal, sys
from pathlib import Path
from pcanel.cli import main
from pcanel.commands import image
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
{more}
image.BUILD = Path(sys.argv[1])
sys.exit(main(["image", "debian", "some"]))
"""
# A signal as soon as the program has begun, before subprocess has come back to its caller.
EARLY = """
import os, subprocess, time
begin = subprocess.Popen.__init__
def begin_and_end(self, command, *arguments, **options):
    begin(self, command, *arguments, **options)
    if command[0] == "mmdebstrap":
        while not Path(sys.argv[2]).is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
subprocess.Popen.__init__ = begin_and_end
"""


class Making:
    """`pcanel image debian` with a program of ours in mmdebstrap's place, which has begun."""

    def __init__(self, directory, trap, more=""):
        self.images = directory / "build/images"
        self.tidied = directory / "tidied"
        pids = directory / "pids"
        program = directory / "bin/mmdebstrap"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(trap=trap.format(tidied=self.tidied), pids=pids))
        program.chmod(0o755)
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        command = [sys.executable, "-c", MAKE.format(more=more), directory / "build", pids]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        end = time.monotonic() + LIMIT
        while not pids.is_file():
            assert time.monotonic() < end, "mmdebstrap was not started"
            time.sleep(0.05)
        self.started = [int(pid) for pid in pids.read_text().split()]

    def left(self):
        """Programs that still run, and directories that are still there."""
        return [pid for pid in self.started if runs(pid)] + [path for path in self.images.iterdir() if path.is_dir()]

    def check_gone(self):
        """The kernel ends a killed program in its own time."""
        end = time.monotonic() + LIMIT
        while self.left():
            assert time.monotonic() < end, self.left()
            time.sleep(0.05)


def runs(pid):
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_image(tmp_path, number):
    """Its programs are given the time to tidy up."""
    making = Making(tmp_path, "sleep 0.5; touch {tidied}; exit 1")
    making.process.send_signal(number)
    assert making.process.wait(LIMIT) == (1 if number == signal.SIGINT else 128 + number)
    assert making.tidied.is_file()
    making.check_gone()


def test_while_its_program_starts(tmp_path):
    making = Making(tmp_path, "touch {tidied}; exit 1", EARLY)
    assert making.process.wait(LIMIT) == 1
    assert making.tidied.is_file()
    making.check_gone()


def test_programs_that_do_not_heed_it(tmp_path):
    """They are killed, at once by a second signal."""
    making = Making(tmp_path, "")
    making.process.terminate()
    time.sleep(0.5)
    assert making.process.poll() is None and len(making.left()) == 3
    making.process.send_signal(signal.SIGINT)
    assert making.process.wait(LIMIT) == 1
    making.check_gone()
