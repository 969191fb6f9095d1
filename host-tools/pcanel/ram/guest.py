"""A guest of a running monitor from outside: its memory by guest-physical address, its vCPUs, its VMCOREINFO.

The monitor is asked once, at its prompt, where the guest's memory lies and what its registers are; memory itself comes
past the prompt (ram/map.py), or by the line where the engine shows none (ram/line.py).
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from pcanel.errors import EngineError, InputError, PcanelError
from pcanel.repl import RemoteError

PAGE = 0x1000
_MODULE = "__import__('vmm.insight.facts', None, None, ['of'])"
_NAME = re.compile(r"[^\s'\\]{1,120}")


class Memory(Protocol):
    """Host-physical memory."""

    def read(self, hpa: int, size: int) -> bytes: ...


@dataclass(frozen=True)
class Facts:
    """vmm.insight.facts.of(). segments: (gpa, size, hpa); vcpus: {"state", "cr3", "registers"} of each."""

    name: str
    state: str
    starts: int
    segments: list[tuple[int, int, int]]
    vcpus: list[dict]
    vmcoreinfo: str
    why: str
    page_offset: int

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


class Cached:
    """The same, with each page read once: for a guest that stands still."""

    def __init__(self, memory: GuestMemory, most: int = 1 << 18):
        """most: pages kept."""
        self._memory = memory
        self.segments = memory.segments
        self._most = most
        self._pages: dict[int, bytes] = {}

    def read(self, gpa: int, size: int) -> bytes:
        page, at = divmod(gpa, PAGE)
        if at + size <= PAGE:
            return self._page(page)[at : at + size]
        last = (gpa + size - 1) // PAGE
        return b"".join([self._page(number) for number in range(page, last + 1)])[at : at + size]

    def _page(self, number: int) -> bytes:
        data = self._pages.get(number)
        if data is None:
            if len(self._pages) >= self._most:
                self._pages.clear()
            data = self._pages[number] = self._memory.read(number * PAGE, PAGE)
        return data

    def forget(self) -> None:
        """The guest has run meanwhile."""
        self._pages.clear()


def check_name(name: str) -> str:
    """A guest's name as it may stand in a line of Python. InputError."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be a guest's name")
    return name


Evaluate = Callable[[str], Any]  # the value of an expression at the monitor's prompt


def ask(evaluate: Evaluate, name: str) -> Facts:
    """What the monitor says of a guest. InputError: there is none."""
    return Facts(**answer(evaluate, name, "of"))


@contextmanager
def held(evaluate: Evaluate, name: str, wanted: bool = True) -> Iterator[None]:
    """The guest stands still meanwhile; it goes on afterwards if it did before. wanted: False leaves it alone."""
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
