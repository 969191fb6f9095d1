"""`pcanel exec, repl, console, status, stop`: for a monitor that is running."""

import argparse
import os
import select
import signal
import sys
import time
from pathlib import Path

from pcanel import local, repl
from pcanel.commands.output import check_timeout, show
from pcanel.errors import PcanelError
from pcanel.monitor import BOOT_TIMEOUT, REPL
from pcanel.runs import Run, find, live_runs
from pcanel.terminal import Line, Terminal, is_terminal

_STOP_TIMEOUT = 20  # seconds
_QUIET = 2  # seconds without output after which a console is taken to be done


def add_to(commands) -> None:
    _add(commands, "exec", _exec, "run Python at a running monitor's prompt").add_argument("code", metavar="PYTHON")
    _add(commands, "repl", _repl, "the prompt of a running monitor")
    _add(commands, "console", _console, "a guest's console").add_argument("name", metavar="NAME")
    _add(commands, "status", _status, "what runs, and the names of its consoles")
    _add(commands, "stop", _stop, "end a running monitor")
    commands.choices["exec"].add_argument("--timeout", type=float, default=60, metavar="S", help="default 60")


def _add(commands, name: str, handler, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--run", metavar="ID", help="which run, where there are several")
    parser.set_defaults(handler=handler)
    return parser


def _exec(options: argparse.Namespace) -> int:
    check_timeout(options.timeout)
    run = find(options.run)
    run.wait_booted(BOOT_TIMEOUT)
    repl.execute(Path(run.console(REPL)["socket"]), options.code, options.timeout, show)
    return 0


def _repl(options: argparse.Namespace) -> int:
    return _attach(find(options.run), REPL)


def _console(options: argparse.Namespace) -> int:
    return _attach(find(options.run), options.name)


def _attach(run: Run, name: str) -> int:
    run.console(name)
    lines = [_line(run, each) for each in run.state["consoles"]]
    if not is_terminal():
        return _pass_through(_line(run, name))
    print(f"pcanel: console {name} of run {run.id}; Ctrl-] q leaves it, Ctrl-] and a digit changes it")
    reason = Terminal(lines, "leave", lambda: None).run(name)
    if reason:
        raise PcanelError(reason)
    return 0


def _line(run: Run, name: str) -> Line:
    console = run.console(name)
    return Line(name, lambda: local.connect(Path(console["socket"])), Path(console["log"]), name == REPL)


def _pass_through(line: Line) -> int:
    """Without a terminal: stdin is typed, output is shown; ends when stdin has and the console is quiet."""
    with line.connect() as console:
        sources = [console, sys.stdin]
        while True:
            ready = select.select(sources, [], [], _QUIET)[0]
            if not ready and sys.stdin not in sources:
                return 0
            if console in ready:
                data = console.recv(65536)
                if not data:
                    raise PcanelError(f"the console {line.name} has ended")
                show(data)
            if sys.stdin in ready:
                typed = os.read(sys.stdin.fileno(), 4096)
                if typed:
                    console.sendall(typed.replace(b"\n", b"\r"))
                else:
                    sources.remove(sys.stdin)


def _status(options: argparse.Namespace) -> int:
    runs = [find(options.run)] if options.run else live_runs()
    if not runs:
        print("no monitor is running")
    for run in runs:
        state = run.state
        booted = "the prompt is there" if state["booted"] else "booting"
        print(f"run {run.id}: engine {state['engine']}, CPU model {state['cpu']}, {state['memory']} MB, {booted}")
        for name, console in state["consoles"].items():
            print(f"  {name:8} {console['socket']}  {console['pty']}  {console['log']}")
    return 0


def _stop(options: argparse.Namespace) -> int:
    run = find(options.run)
    os.kill(run.state["pid"], signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while any(other.id == run.id for other in live_runs(run.path.parent)):
        if time.monotonic() > deadline:
            raise PcanelError(f"run {run.id} (process {run.state['pid']}) has not ended within {_STOP_TIMEOUT} s")
        time.sleep(0.1)
    print(f"run {run.id} has ended; its logs are in {run.path}")
    return 0
