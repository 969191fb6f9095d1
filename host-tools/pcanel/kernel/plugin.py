"""drgn's plug-in: every drgn of this environment uses it, drgn-crash too (docs/gdb-drgn.md).

A core file of a Linux gets types and symbols from the kernel's own memory, so that no debugging symbols are needed.
`pcanel drgn` names a running guest in $PCANEL_GUEST; then the core file has its registers only, and memory comes from
the guest itself.
"""

import atexit
import contextlib
import json
import os
from pathlib import Path

import drgn

from pcanel import repl
from pcanel.errors import EngineError
from pcanel.kernel import finders
from pcanel.kernel.image import Overlaid
from pcanel.kernel.variable import VARIABLE
from pcanel.ram import served
from pcanel.ram.guest import Cached, GuestMemory, Watched
from pcanel.ram.line import LineMemory

_TIMEOUT = 120  # seconds for a line at the prompt
_BLOCK = 256  # bytes read at once by a serial line, where a page takes a third of a second


def drgn_prog_set(prog: drgn.Program) -> None:
    """drgn calls this once the program has its memory."""
    said = os.environ.get(VARIABLE)
    if said:
        attach(prog, _memory(prog, json.loads(said)))
    if prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL and not prog.flags & drgn.ProgramFlags.IS_LIVE:
        finders.add(prog)
        finders.bound(prog)


def attach(prog: drgn.Program, memory: GuestMemory | Cached | Overlaid) -> None:
    """The program reads a guest's memory from here on."""
    for gpa, size, _ in memory.segments:
        prog.add_memory_segment(gpa, size, lambda at, count, _offset, _physical: memory.read(at, count), True)


def _memory(prog: drgn.Program, guest: dict) -> Cached | Overlaid | GuestMemory:
    """guest: what `pcanel drgn` has put into $PCANEL_GUEST."""
    if guest["run"]:
        with contextlib.suppress(EngineError):  # an engine that shows none
            ram = served.connect(Path(guest["run"]))
            memory = Watched(ram, guest["name"], guest["segments"], guest["frames"], not guest["live"])
            return memory if guest["live"] else Cached(memory)
    session = repl.Session(guest["line"] or Path(guest["prompt"]), _TIMEOUT)
    atexit.register(session.close)
    memory = GuestMemory(LineMemory(lambda code: session.execute(code, _TIMEOUT)), guest["segments"])
    memory = memory if guest["live"] else Cached(memory, _BLOCK)
    told = prog["VMCOREINFO"].string_().decode(errors="replace")
    return Overlaid.of(memory, told, [Path(file) for file in guest["kernels"]])
