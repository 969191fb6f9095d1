"""A guest of a running monitor from outside: its memory by guest-physical address, its vCPUs, its VMCOREINFO.

The monitor is asked once, at its prompt, where the guest's memory lies and what its registers are; memory itself comes
past the prompt (ram/map.py), or by the line where the engine shows none (ram/line.py).
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pcanel.errors import EngineError, InputError, PcanelError
from pcanel.ram.line import LineMemory
from pcanel.repl import RemoteError
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx import frame
    from vmm.vtx.x86 import PAGE

_MODULE = "__import__('vmm.insight.facts', None, None, ['of'])"
_NAME = re.compile(r"[^\s'\\]{1,120}")


class Memory(Protocol):
    """Host-physical memory."""

    def read(self, hpa: int, size: int) -> bytes: ...


@dataclass(frozen=True)
class Facts:
    """vmm.insight.facts.of(). segments: (gpa, size, hpa); vcpus: {"state", "cr3", "registers"} of each; frames: their
    hpas."""

    name: str
    state: str
    starts: int
    segments: list[tuple[int, int, int]]
    vcpus: list[dict]
    vmcoreinfo: str
    why: str
    page_offset: int
    frames: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.segments)


class GuestMemory:
    """read(gpa, size) of a guest's RAM; ValueError outside."""

    def __init__(self, memory: Memory, segments: list[tuple[int, int, int]]):
        self._memory = memory
        self.segments = segments

    def read(self, gpa: int, size: int) -> bytes:
        for base, length, hpa in self.segments:
            if base <= gpa and gpa + size <= base + length:
                return self._memory.read(hpa + gpa - base, size)
        raise ValueError(f"gpa {gpa:#x}+{size:#x} is outside the guest's memory")


class Watched(GuestMemory):
    """The same by the emulator's memory, with an EngineError once it is not the memory that it was: the guest was reset
    or destroyed, or, where it should stand still, has run."""

    def __init__(
        self, memory: Memory, name: str, segments: list[tuple[int, int, int]], frames: Sequence[int], still: bool
    ):
        super().__init__(memory, segments)
        self._name = name
        indices = (frame.STARTS, frame.ENTRY_TSC) if still else (frame.STARTS,)
        self._words = [[hpa + 4 * index for hpa in frames] for index in indices]
        self._were = self._marks()

    def _marks(self) -> list[list[bytes]]:
        return [[self._memory.read(hpa, 8) for hpa in words] for words in self._words]

    def read(self, gpa: int, size: int) -> bytes:
        data = super().read(gpa, size)
        marks = self._marks()
        if marks != self._were:
            has = "run" if marks[0] == self._were[0] else "been reset or destroyed"
            raise EngineError(
                f"guest {self._name} has {has} meanwhile: what was read before no longer fits, begin anew"
            )
        return data


class Cached:
    """The same, with each block read once: for a guest that stands still."""

    def __init__(self, memory: GuestMemory, block: int = PAGE, most: int = 1 << 30):
        """block: bytes read at once, at least; most: bytes kept."""
        self._memory = memory
        self.segments = memory.segments
        self._size = block
        self._most = most // block
        self._blocks: dict[int, bytes] = {}

    def read(self, gpa: int, size: int) -> bytes:
        first, at = divmod(gpa, self._size)
        if at + size <= self._size and first in self._blocks:
            return self._blocks[first][at : at + size]
        last = max(gpa, gpa + size - 1) // self._size
        self._fetch(first, last)
        return b"".join([self._blocks[number] for number in range(first, last + 1)])[at : at + size]

    def _fetch(self, first: int, last: int) -> None:
        """Reads the blocks that are not known, those that adjoin at once."""
        blocks, size = self._blocks, self._size
        if len(blocks) + last + 1 - first > self._most:
            blocks.clear()
        while first <= last:
            end = first
            while end <= last and end not in blocks:
                end += 1
            if end > first:
                data = self._memory.read(first * size, (end - first) * size)
                for number in range(first, end):
                    blocks[number] = data[(number - first) * size : (number - first + 1) * size]
            first = end + 1

    def forget(self) -> None:
        """The guest has run meanwhile."""
        self._blocks.clear()


def watched(memory: Memory, facts: Facts, still: bool) -> GuestMemory:
    """The guest's memory, Watched where that costs nothing. still: the guest stands still."""
    if isinstance(memory, LineMemory):
        return GuestMemory(memory, facts.segments)
    return Watched(memory, facts.name, facts.segments, facts.frames, still)


def check_name(name: str) -> str:
    """A guest's name as it may stand in a line of Python. InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a guest's name")
    return name


Evaluate = Callable[[str], Any]  # the value of an expression at the monitor's prompt


def ask(evaluate: Evaluate, name: str) -> Facts:
    """The monitor's facts about a guest. InputError: there is none."""
    return Facts(**answer(evaluate, name, "of"))


@contextmanager
def held(evaluate: Evaluate, name: str, wanted: bool = True) -> Iterator[None]:
    """The guest stands still in this block and goes on afterwards if it ran before. wanted: False does not stop it."""
    paused = wanted and answer(evaluate, name, "hold")
    try:
        yield
    finally:
        if paused:
            with contextlib.suppress(PcanelError):  # it was destroyed, or all has ended meanwhile
                answer(evaluate, name, "release")


def answer(evaluate: Evaluate, name: str, what: str):
    """What the function `what` of vmm.insight.facts says of a guest. InputError: there is none."""
    try:
        said = evaluate(f"{_MODULE}.ask(vms, {check_name(name)!r}, {_MODULE}.{what})")
    except RemoteError as error:
        raise EngineError(f"guest {name}: {error.traceback.strip().splitlines()[-1]}") from error
    if isinstance(said, list):
        there = ", ".join(said) or "none"
        raise InputError(f"there is no guest {name}; there are: {there}")
    return said[0]
