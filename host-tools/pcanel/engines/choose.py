"""Which engine to take."""

from dataclasses import dataclass

from pcanel.engines.base import Engine
from pcanel.engines.bochs import Bochs, Bochs27
from pcanel.engines.host import nested_vmx
from pcanel.engines.nested import Nested
from pcanel.engines.qemu import Qemu
from pcanel.errors import InputError

ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Bochs, Bochs27, Qemu, Nested)}


@dataclass(frozen=True)
class Choice:
    engine: type[Engine]
    reason: str


def choose(name: str) -> Choice:
    """`auto` takes QEMU where the host offers nested VMX, else Bochs."""
    host = nested_vmx()
    if name == "auto":
        return Choice(Qemu if host.usable else Bochs, host.reason)
    if name not in ENGINES:
        raise InputError(f"--engine {name}: there are auto, {', '.join(ENGINES)}")
    if name == "qemu" and not host.usable:
        return Choice(Qemu, f"asked for; by TCG, which has no VT-x: {host.reason}")
    return Choice(ENGINES[name], "asked for")
