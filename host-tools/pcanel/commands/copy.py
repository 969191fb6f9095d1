"""`pcanel cp`: files between this machine and a running monitor's file system, at the speed of memory.

`mpremote cp` goes by the prompt's line instead, which does 11,520 characters a second.
"""

import argparse
import time
from pathlib import Path

from pcanel.client import Client
from pcanel.errors import InputError, PcanelError
from pcanel.monitor import BOOT_TIMEOUT
from pcanel.paths import lack_of
from pcanel.repl import RemoteError
from pcanel.runs import find

_COPYING = "__import__('vmm.debug.copying', None, None, ['fetch'])"
_TIMEOUT = 600  # seconds


def add_to(commands) -> None:
    parser = commands.add_parser("cp", help="copy a file to or from a running monitor", description=__doc__)
    parser.add_argument("source", metavar="SOURCE", help="a file here, or :PATH on the monitor")
    parser.add_argument("target", metavar="TARGET", help=":PATH on the monitor, or a file here")
    parser.add_argument("--run", metavar="ID", help="which run, where there are several")
    parser.set_defaults(handler=_copy)


def _copy(options: argparse.Namespace) -> int:
    source, target = options.source, options.target
    if source.startswith(":") == target.startswith(":"):
        raise InputError("one of SOURCE and TARGET is :PATH, a file of the monitor's")
    if source.startswith(":"):
        path = Path(target)
        if path.is_dir():
            path /= Path(source[1:]).name
        code = f"{_COPYING}.send({source[1:]!r}, {str(path.absolute())!r})"
    else:
        path = Path(source)
        if lack_of(path):
            raise InputError(f"{source}: {lack_of(path)}")
        place = target[1:] + path.name if target.endswith((":", "/")) else target[1:]
        code = f"{_COPYING}.fetch({str(path.absolute())!r}, {place!r})"
    run = find(options.run)
    run.wait_booted(BOOT_TIMEOUT)
    client = Client(run)
    began = time.monotonic()
    try:
        size = client.evaluate(code, _TIMEOUT)
    except RemoteError as error:
        raise PcanelError(f"{source} to {target}: {error.traceback.strip().splitlines()[-1]}") from error
    finally:
        client.close()
    took = time.monotonic() - began
    print(f"{source} to {target}: {size:,} bytes, {took:.2f} s")
    return 0
