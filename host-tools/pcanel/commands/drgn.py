"""`pcanel drgn`: an unchanged drgn on a running guest, or on a core file of `pcanel dump`."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

from pcanel.commands.inside import add_choice, asked
from pcanel.errors import InputError
from pcanel.kernel.variable import VARIABLE
from pcanel.monitor import REPL
from pcanel.paths import ROOT, lack_of
from pcanel.runs import Run

_SYMBOLS = ("-s", "--symbols", "--main-symbols", "--extra-symbols", "--no-default-symbols", "--try-symbols-by")


def add_to(commands) -> None:
    parser = commands.add_parser(
        "drgn",
        help="drgn on a running guest, or on a core file",
        description=__doc__,
        usage="%(prog)s [options] NAME ...",
    )
    add_choice(parser)
    parser.add_argument(
        "--kernel",
        type=Path,
        metavar="FILE",
        help="the guest's vmlinux or bzImage, whose symbols and types then do not come by a serial line"
        " (default: that of the guest file)",
    )
    parser.add_argument("--crash", action="store_true", help="drgn-crash, which has the commands of crash")
    parser.add_argument("name", metavar="NAME", help="the guest, or a core file")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what drgn takes: options, a script")
    parser.set_defaults(handler=_drgn)


def _drgn(options: argparse.Namespace) -> int:
    path = Path(options.name)
    if path.is_file():
        return _run(options, options.name, None)
    with asked(options, options.name) as (facts, run):
        if not facts.vmcoreinfo:
            raise InputError(f"guest {options.name} runs no Linux that drgn knows: {facts.why}")
        guest = {
            "run": str(run.path) if run else None,
            "prompt": run.console(REPL)["socket"] if run else None,
            "line": options.line,
            "name": facts.name,
            "segments": facts.segments,
            "frames": facts.frames,
            "live": options.live,
            "kernels": [str(file) for file in _kernels(options, run)],
        }
        from pcanel.kernel.program import core_file  # imports drgn

        with core_file(facts) as core:
            return _run(options, f"/proc/self/fd/{core.fileno()}", guest, (core.fileno(),))


def _kernels(options: argparse.Namespace, run: Run | None) -> list[Path]:
    """Files that the guest's kernel may be from: the one that is named, or those that guest files of its name boot."""
    if options.kernel:
        if lack_of(options.kernel):
            raise InputError(f"{options.kernel}: {lack_of(options.kernel)}")
        return [options.kernel.absolute()]
    found = []
    for path in map(Path, run.state["guests"] if run else sorted((ROOT / "guests").glob("*.toml"))):
        with contextlib.suppress(OSError, tomllib.TOMLDecodeError):
            table = tomllib.loads(path.read_text())
            if table.get("name", path.stem) == options.name and isinstance(table.get("kernel"), str):
                found.append((path.parent / table["kernel"]).absolute())
    return found


def _run(options: argparse.Namespace, core: str, guest: dict | None, descriptors: tuple[int, ...] = ()) -> int:
    """drgn as a program of its own; Ctrl-C is its."""
    environment = {**os.environ, VARIABLE: json.dumps(guest)} if guest else dict(os.environ)
    if options.crash:
        words = ["-m", "drgn.internal.crashcli", core, *options.rest]
    else:
        given = any(word.split("=", 1)[0] in _SYMBOLS for word in options.rest)
        words = ["-m", "drgn", "-c", core, *([] if given else ["--no-default-symbols"]), *options.rest]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, pass_fds=descriptors, preexec_fn=_with_interrupts
        )
        try:
            return process.wait()
        except BaseException:  # this program is told to end
            process.terminate()
            process.wait()
            raise
    finally:
        signal.signal(signal.SIGINT, before)


def _with_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
