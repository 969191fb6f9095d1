"""Which Python functions a traced round was in: by the calls of fun_bc_call and its likes, and the returns.

Bytecode has no symbols, but each call passes through a C function of py/objfun.c whose first argument is the function's
object. The first load through that argument says where the object is, and the prompt says whose it is. A function ends
with the RET that reads its return address from the stack.
"""

import re
from dataclasses import dataclass

from pcanel.bench.trace import Instruction
from pcanel.symbols import Symbols

_CALLERS = ("fun_bc_call", "fun_viper_call", "fun_native_call", "gen_wrap_call")
_COPY = re.compile(r"mov (r\w+), (r\w+) ")
_LOAD = re.compile(r"ptr ds:\[(r\w+)(?:\+(\d+))?\]")
_SEARCH = 40  # instructions in which the first load comes


@dataclass
class Call:
    """A Python function in a round. `own` has the C functions in it, `whole` the Python functions too."""

    name: str
    count: int = 0
    own: int = 0
    whole: int = 0


def attribute(instructions: list[Instruction], symbols: Symbols, functions: dict[int, str]) -> list[Call]:
    """The Python functions of a round, the dearest first."""
    entries = {symbols[name] for name in _CALLERS if name in symbols}
    found: dict[str, Call] = {}
    stack: list[tuple[Call, int]] = []  # with the address of the return address
    for index, instruction in enumerate(instructions):
        if instruction.in_guest:
            continue
        if instruction.gva in entries:
            name = _function(instructions, index, functions)
            call = found.setdefault(name, Call(name))
            call.count += 1
            stack.append((call, _return_slot(instruction)))
        for call in {id(call): call for call, _ in stack}.values():  # once, however deep it recurses
            call.whole += 1
        if stack:
            stack[-1][0].own += 1
        if instruction.text.startswith("ret") and instruction.accesses:
            while stack and stack[-1][1] <= instruction.accesses[0][1]:
                stack.pop()
    return sorted(found.values(), key=lambda call: -call.own)


def _return_slot(first: Instruction) -> int:
    """Where the return address lies, by the function's first PUSH."""
    pushed = [address for kind, address in first.accesses if kind == "WR"]
    return pushed[0] + 8 if pushed else 0


def _function(instructions: list[Instruction], entry: int, functions: dict[int, str]) -> str:
    argument = {"rdi"}
    for instruction in instructions[entry : entry + _SEARCH]:
        load = _LOAD.search(instruction.text)
        reads = [address for kind, address in instruction.accesses if kind == "RD"]
        if load and load[1] in argument and reads:
            address = reads[0] - int(load[2] or 0)
            return functions.get(address, f"(function at {address:#x})")
        copy = _COPY.match(instruction.text)
        if copy and copy[2] in argument:
            argument.add(copy[1])
    return "(unknown)"


def report(calls: list[Call]) -> str:
    lines = ["Python functions (instructions of its own, with those that it calls, calls):"]
    lines += [f"{call.own:8} {call.whole:8} {call.count:6}  {call.name}" for call in calls]
    return "\n".join(lines)
