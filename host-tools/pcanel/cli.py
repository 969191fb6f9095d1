"""The command `pcanel`: see `pcanel --help`, and each command's own --help.

Exit status: 0 when all went well, 1 when the monitor failed or a wait reached its
limit, 2 for bad usage or bad input.
"""

import argparse
import importlib
import signal
import sys

from pcanel.errors import InputError, PcanelError

_MODULES = (
    "run",
    "client",
    "copy",
    "dump",
    "drgn",
    "gdb",
    "trace",
    "capture",
    "plot",
    "top",
    "screenshot",
    "view",
    "image",
    "bench",
    "doctor",
)  # of pcanel.commands, in the order of --help

EXIT_FAILED = 1
EXIT_USAGE = 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage."""

    def error(self, message: str):
        self.exit(EXIT_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    parser = _Parser(prog="pcanel", description="Runs and steers the Pcanel/Py monitor.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in _MODULES:
        importlib.import_module(f"pcanel.commands.{name}").add_to(commands)
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminated)
    try:
        return options.handler(options)
    except InputError as error:
        return _complain(options, error, EXIT_USAGE)
    except PcanelError as error:
        return _complain(options, error, EXIT_FAILED)
    except OSError as error:  # a full disk, a directory that may not be written: one line has the file and the cause
        return _complain(options, _words(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return _complain(options, "interrupted", EXIT_FAILED)


def _complain(options, error, status: int) -> int:
    print(f"pcanel {options.command}: {error}", file=sys.stderr)
    return status


def _words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _terminated(number: int, _frame) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
