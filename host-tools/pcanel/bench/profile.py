"""Where the instructions of one exit go: a traced round, by symbol of the monitor's image.

Frozen viper and native functions have symbols of their own, which name module and class or
function; 2, 3, ... is the second, third, ... such function of its class, in the order of the file.
Frozen bytecode runs in the interpreter's functions and shows there. Code that the
monitor compiled while it ran lies in its heap and has no name.
"""

import itertools
import re
from collections import Counter
from pathlib import Path

from pcanel.bench.trace import Instruction
from pcanel.symbols import Symbols

GUEST = "(guest)"
HEAP = "(made at run time)"
# Behind the name stands the path of the file, and a number from the second such function of a class or module on.
_NATIVE = re.compile(r"fun_data_(.+?)(?:_[A-Za-z0-9]+_slash_.*_dot_py(\d*))?$")


def name_all(instructions: list[Instruction], symbols: Symbols) -> list[str]:
    """The symbol of each instruction."""
    end = symbols["image_end"]
    known: dict[int, str] = {}

    def name(instruction: Instruction) -> str:
        if instruction.in_guest:
            return GUEST
        address = instruction.gva
        if address not in known:
            known[address] = _short(symbols.at(address)) if address < end else HEAP
        return known[address]

    return [name(instruction) for instruction in instructions]


def _short(symbol: str) -> str:
    """Without the offset; a frozen function as [MODULE_FUNCTION]."""
    symbol = symbol.partition("+")[0]
    native = _NATIVE.match(symbol)
    return f"[{native[1]}{' ' + native[2] if native[2] else ''}]" if native else symbol


def in_order(names: list[str]) -> list[tuple[str, int]]:
    """The symbols in the order in which control came to them, with the instructions up to the next."""
    return [(name, sum(1 for _ in group)) for name, group in itertools.groupby(names)]


def summed(names: list[str]) -> list[tuple[str, int, int]]:
    """(symbol, instructions, how often control came to it), the dearest first."""
    visits = Counter(name for name, _ in in_order(names))
    return [(name, count, visits[name]) for name, count in Counter(names).most_common()]


def report(row: str, names: list[str]) -> str:
    """Both lists as text."""
    monitor = sum(name != GUEST for name in names)
    lines = [f"{row}: {len(names)} instructions, {monitor} of them the monitor's", "", "in order:"]
    lines += [f"{count:8}  {name}" for name, count in in_order(names)]
    lines += ["", "summed (instructions, share, visits):"]
    lines += [f"{count:8} {100 * count / len(names):5.1f}% {visits:6}  {name}" for name, count, visits in summed(names)]
    return "\n".join(lines)


def write_listing(path: Path, instructions: list[Instruction], names: list[str]) -> None:
    """Each instruction with its tick, counted from the first, its address and its symbol."""
    path.parent.mkdir(parents=True, exist_ok=True)
    start = instructions[0].tick
    with path.open("w") as file:
        for instruction, name in zip(instructions, names, strict=True):
            file.write(f"{instruction.tick - start:6} {instruction.gva:#x} {name:40} {instruction.text}\n")
