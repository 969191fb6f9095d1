"""drgn's plug-in: every drgn of this environment uses it, drgn-crash too (docs/gdb-drgn.md).

A core file of a Linux gets types and symbols from the kernel's own memory, so that no debugging symbols are needed.
`pcanel drgn` names a running guest in $PCANEL_GUEST; then the core file has its registers only, and memory comes from
the guest itself.
"""

import json
import os
from pathlib import Path

import drgn

from pcanel import repl
from pcanel.kernel import finders
from pcanel.kernel.variable import VARIABLE
from pcanel.ram import served
from pcanel.ram.guest import Cached, GuestMemory
from pcanel.ram.line import LineMemory

_TIMEOUT = 120  # seconds for a line at the prompt


def drgn_prog_set(prog: drgn.Program) -> None:
    """drgn calls this once the program has its memory."""
    said = os.environ.get(VARIABLE)
    if said:
        attach(prog, _memory(json.loads(said)))
    if prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL and not prog.flags & drgn.ProgramFlags.IS_LIVE:
        finders.add(prog)
        finders.bound(prog)


def attach(prog: drgn.Program, memory: GuestMemory | Cached) -> None:
    """The program reads a guest's memory from here on."""
    for gpa, size, _ in memory.segments:
        prog.add_memory_segment(gpa, size, lambda at, count, _offset, _physical: memory.read(at, count), True)


def _memory(guest: dict) -> Cached | GuestMemory:
    """guest: what `pcanel drgn` has put into $PCANEL_GUEST."""
    if guest["line"]:
        memory = LineMemory(lambda code: repl.execute(guest["line"], code, _TIMEOUT))
    else:
        memory = served.connect(Path(guest["run"]))
    memory = GuestMemory(memory, guest["segments"])
    return memory if guest["live"] else Cached(memory)
