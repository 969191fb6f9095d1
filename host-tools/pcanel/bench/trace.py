"""A run of the monitor in which Bochs's debugger prints each instruction of one round of a row.

The guest executes a magic breakpoint (XCHG BX, BX) before and behind the round (`mark` in
guests/exitbench/bench.h). The debugger switches its trace on at the first and off at the
second. The round comes behind all measured ones, so it is one of the steady state.
"""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

from pcanel.bench import conditions, guest
from pcanel.bench.monitored import GUESTS, UNMITIGATED, Monitored
from pcanel.engines.bochs import BochsDebugger
from pcanel.engines.choose import Choice
from pcanel.errors import PcanelError
from pcanel.paths import ELF

_LINE = re.compile(r"^\(0\)\.\[(\d+)\] \[0x([0-9a-f]+)\] [0-9a-f]+:([0-9a-f]+) \([^)]*\): (.*)$")
_ACCESS = re.compile(r"^\[CPU0 (RD|WR)\]: LIN 0x([0-9a-f]+) ")
_ENABLED = "Tracing enabled"
_TIMEOUT = 300  # seconds
_PERIOD = 0.2
_ROUNDS = 200  # before the one that is traced

# At the prompt: the functions of all modules and of their classes. A function's id() is its object's address.
_FUNCTIONS = """
import sys
def _functions():
    kinds = ("function", "bound_method", "closure", "generator")
    def show(place, name, thing):
        if type(thing).__name__ in kinds:
            print(id(thing), place + "." + name)
    spaces = [(place, sys.modules[place].__dict__) for place in sys.modules if hasattr(sys.modules[place], "__dict__")]
    for place, space in [("__main__", globals())] + spaces:
        for name, thing in list(space.items()):
            show(place, name, thing)
            if isinstance(thing, type) and getattr(thing, "__module__", "") == place:
                for inner, function in thing.__dict__.items():
                    show(place, name + "." + inner, function)
_functions()
"""


@dataclass(frozen=True)
class Instruction:
    """hpa is what linear address gva stands for: the monitor's are the same, a guest's are not."""

    tick: int
    hpa: int
    gva: int
    text: str
    accesses: list[tuple[str, int]] = field(default_factory=list)  # ('RD' or 'WR', linear address)

    @property
    def in_guest(self) -> bool:
        return self.hpa != self.gva


class _Traced(BochsDebugger):
    """Bochs with a trace between two magic breakpoints; it ends behind the second."""

    def prepare(self) -> None:
        super().prepare()
        with (self.machine.directory / "bochsrc").open("a") as config:
            config.write("magic_break: enabled=1\n")

    def debugger_script(self) -> str:
        return "c\ntrace on\ntrace-mem on\nc\ntrace off\nq\n"


def trace(row: str, cpu: str | None = None) -> tuple[list[Instruction], dict[int, str]]:
    """The instructions of one round of a row under the monitor, guest's and monitor's, in order.

    Also {address of its object: name} of the monitor's Python functions.
    """
    variant = conditions.VARIANTS.get(row, conditions.Variant(row, ""))
    mitigations = "" if variant.condition == conditions.MITIGATED else UNMITIGATED
    with Monitored(cpu, ELF, Choice(_Traced, "the trace is its debugger's"), mitigations) as bench:
        name, _ = GUESTS.get(variant.condition, (guest.NAME, ""))
        bench.attach(variant.condition)
        functions = dict(line.split(" ", 1) for line in bench.monitor.exec(_FUNCTIONS).splitlines() if " " in line)
        bench.begin(guest.cmdline([variant.row], _ROUNDS, trace=1), name)
        _wait_ended(bench, variant.row, name)
        return _parse(bench.monitor.engine.log), {int(address): name for address, name in functions.items()}


def _wait_ended(bench: Monitored, row: str, name: str) -> None:
    """The debugger ends Bochs behind the second mark; a guest that comes to its end has made none."""
    deadline = time.monotonic() + _TIMEOUT
    while not bench.monitor.engine.ended():
        text = bench.console(name).text()
        if re.search(guest.DONE, text, re.MULTILINE):
            raise PcanelError(f"row {row}: {guest.skipped(text).get(row, 'there is no such row')}")
        if time.monotonic() > deadline:
            raise PcanelError(f"row {row}: not traced within {_TIMEOUT} s\n{bench.monitor.tails()}")
        time.sleep(_PERIOD)


def _parse(log: Path) -> list[Instruction]:
    found = []
    with log.open(errors="replace") as lines:
        for line in lines:  # the debugger shows instructions at which it stops, too
            if _ENABLED in line:
                break
        for line in lines:
            access = _ACCESS.match(line)
            if access and found:
                found[-1].accesses.append((access[1], int(access[2], 16)))
            match = _LINE.match(line.rstrip())
            if match:
                tick, hpa, gva, text = match.groups()
                found.append(Instruction(int(tick), int(hpa, 16), int(gva, 16), text))
    if not found:
        raise PcanelError(f"{log}: the debugger has traced nothing")
    return found
