"""`pcanel gdb`: an unchanged gdb on a running guest, by the stub on the monitor's COM4."""

import argparse
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import capstone

from pcanel import repl
from pcanel.commands.inside import opened
from pcanel.commands.output import say
from pcanel.errors import InputError, PcanelError
from pcanel.monitor import BOOT_TIMEOUT, REPL
from pcanel.ram.guest import Cached
from pcanel.runs import Run, find

SCRIPTS = [Path(__file__).parents[1] / "ingdb" / name for name in ("modes.py", "frames.py")]
LIBRARIES = "PCANEL_GDB_PATH"  # where they find capstone


def add_to(commands) -> None:
    parser = commands.add_parser(
        "gdb", help="gdb on a running guest", description=__doc__, usage="%(prog)s [options] NAME ..."
    )
    parser.add_argument("--run", metavar="ID", help="which run, where there are several")
    parser.add_argument("--line", metavar="DEVICE", help="a monitor on a PC: the serial line that leads to its COM4")
    parser.add_argument("--symbols", type=Path, metavar="FILE", help="an ELF with debugging information, e.g. vmlinux")
    parser.add_argument("--offset", type=lambda word: int(word, 0), metavar="N", help="of the symbols (KASLR)")
    parser.add_argument("--print", action="store_true", dest="only_print", help="print the command line, do not run it")
    parser.add_argument("name", metavar="NAME", help="the guest; with --line its number")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="what gdb takes, e.g. -batch -ex bt")
    parser.set_defaults(handler=_gdb)


def _gdb(options: argparse.Namespace) -> int:
    if options.symbols and not options.symbols.is_file():
        raise InputError(f"--symbols {options.symbols}: no such file")
    if options.line:
        if not options.name.isdigit():
            raise InputError(f"{options.name}: with --line a guest is named by its number (`info os processes` in gdb)")
        target, number, offset = options.line, int(options.name), options.offset or 0
    else:
        run = find(options.run)
        run.wait_booted(BOOT_TIMEOUT)
        target, number = run.state["gdb"], _number(run, options.name)
        if not options.only_print and _ask(run, "monitor.gdb.stub is not None"):
            raise InputError("another gdb is connected: it has to end first")
        offset = _offset(run, options)
        if not options.symbols:
            options.symbols = _names(run, options.name)
    words = command_line(target, number, options.symbols, offset, options.rest)
    if options.only_print or shutil.which("gdb") is None:
        if not options.only_print:
            say("gdb is missing (Debian: apt-get install gdb); this is its command line:")
        print(f"{LIBRARIES}={shlex.quote(_libraries())} {shlex.join(words)}")
        return 0
    return subprocess.run(words, env=environment()).returncode


def command_line(target: str, number: int, symbols: Path | None, offset: int, rest: list[str]) -> list[str]:
    """gdb and its arguments. number: of the guest; offset: added to the addresses of `symbols`."""
    commands = ["set confirm off", "set osabi none"]
    if symbols:
        commands.append(f"symbol-file -o {offset:#x} {symbols.resolve()}")
    commands += [f"source {script}" for script in SCRIPTS]
    commands += [f"target extended-remote {target}", f"attach {number}"]
    return ["gdb", "-q", *(word for command in commands for word in ("-ex", command)), *rest]


def environment() -> dict[str, str]:
    """For gdb."""
    return {**os.environ, LIBRARIES: _libraries()}


def _libraries() -> str:
    return str(Path(capstone.__file__).parents[1])


def _ask(run: Run, expression: str):
    return repl.evaluate(Path(run.console(REPL)["socket"]), expression)


def _number(run: Run, name: str) -> int:
    """gdb's number of a guest. InputError with the names there are."""
    numbers = _ask(run, "{name: min(vms[name].vpids) for name in vms}")
    if name not in numbers:
        raise InputError(f"there is no guest {name!r}; there are {', '.join(numbers) or 'none'}")
    return numbers[name]


def _offset(run: Run, options: argparse.Namespace) -> int:
    """How far the guest's kernel has moved from where the file has it."""
    if options.offset is not None or not options.symbols:
        return options.offset or 0
    linked = _address(options.symbols, "_text")
    if linked is None:
        return 0
    try:
        return _ask(run, f"vms[{options.name!r}].symbols['_text']") - linked
    except repl.RemoteError as error:
        say(f"the guest does not say where its kernel is: {str(error).splitlines()[-1]}; --offset N does")
        return 0


def _names(run: Run, name: str) -> Path | None:
    """The names and frames of a Linux from its own memory, as an ELF; None for other guests."""
    from pcanel.kernel import symbolfile  # imports drgn
    from pcanel.kernel.program import program

    choice = argparse.Namespace(run=run.id, line=None, live=False)
    try:
        with opened(choice, name) as (facts, memory):
            if not facts.vmcoreinfo:
                return None
            path = run.path / f"{name}.elf"
            count = symbolfile.write(program(facts, Cached(memory)), path)
    except (PcanelError, LookupError, ValueError, MemoryError) as error:
        say(f"no names from guest {name}: {str(error).splitlines()[-1] if str(error) else type(error).__name__}")
        return None
    say(f"{count} names from guest {name}")
    return path


def _address(path: Path, name: str) -> int | None:
    """The address of a symbol in an ELF; None where it has none of that name."""
    from elftools.elf.elffile import ELFFile

    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        found = table.get_symbol_by_name(name) if table else None
        return found[0]["st_value"] if found else None
