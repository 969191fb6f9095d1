"""A guest as a drgn.Program of this process."""

import os

import drgn

from pcanel import vmcore
from pcanel.errors import InputError
from pcanel.kernel import finders, plugin
from pcanel.ram.guest import Cached, Facts


def program(facts: Facts, memory: Cached) -> drgn.Program:
    """Registers are those of `facts`, memory is read as it is asked for. InputError: the guest runs no Linux."""
    if not facts.vmcoreinfo:
        raise InputError(f"guest {facts.name} runs no Linux that drgn knows: {facts.why}")
    prog = drgn.Program()
    with core_file(facts) as core:
        prog.set_core_dump(f"/proc/self/fd/{core.fileno()}")
    plugin.attach(prog, memory)
    finders.bound(prog)
    return prog


def core_file(facts: Facts):
    """An open core file that has registers, but no memory."""
    core = os.fdopen(os.memfd_create(f"{facts.name}.core"), "wb")
    core.write(vmcore.header(facts, with_memory=False)[0])
    core.flush()
    return core
