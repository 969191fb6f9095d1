"""A guest's screen as its registers and its memory say, read from outside: the guest notices nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from pcanel.errors import EngineError
from pcanel.ram.guest import Memory, answer
from pcanel.screen import colours, text
from pcanel.vmm_import import importable

with importable():
    from vmm.devices.bochs_vbe import REGISTERS, BochsVbe
    from vmm.devices.vga import PALETTE, STATE, Vga
    from vmm.screen import Screen

_CHAIN_4_AT = 0xA0000


@dataclass(frozen=True)
class Facts:
    """vmm.insight.facts.screen(). low: hpa of the RAM at gpa 0; of the others: hpas, 0 where there is none."""

    name: str
    starts: int
    size: int
    low: int
    vga: int
    palette: int
    vbe: int
    video: int
    video_size: int


def ask(evaluate: Callable[[str], Any], name: str) -> Facts:
    """The monitor's facts about a guest's screen. InputError: there is no such guest."""
    return Facts(**answer(evaluate, name, "screen"))


class _Ram:
    """The guest's low memory as vmm.screen reads it."""

    def __init__(self, memory: Memory, facts: Facts):
        self._memory = memory
        self._low = facts.low
        self.size = facts.size

    def read(self, gpa: int, size: int) -> bytes:
        if gpa + size > self.size:
            return bytes(size)
        return self._memory.read(self._low + gpa, size)


class Source:
    """One guest's screen. facts may be replaced by newer ones."""

    def __init__(self, memory: Memory, facts: Facts):
        self._memory = memory
        self.facts = facts

    def picture(self) -> numpy.ndarray:
        """Its picture now: height x width x 3, red first. EngineError for a mode that is not shown."""
        facts, memory = self.facts, self._memory
        ram = _Ram(memory, facts)
        vga = Vga(None)
        vga.state[:] = memory.read(facts.vga, STATE)
        if facts.palette:
            vga.palette = memory.read(facts.palette, PALETTE)
        if facts.vbe:
            vga.vbe = vbe = BochsVbe(facts.video_size, None, None)
            vbe.state[:] = type(vbe.state)("H", memory.read(facts.vbe, 2 * (REGISTERS + 1)))
            if vbe.on:
                return self._framebuffer(vga, vbe)
        graphics = vga.graphics
        if graphics is None:
            return text.picture(Screen(ram, vga), vga, ram)
        width, height, bits = graphics
        if bits != 8:
            raise EngineError(f"guest {facts.name}: {width} x {height} in planes (16 colours), which is not shown")
        pixels = numpy.frombuffer(ram.read(_CHAIN_4_AT, width * height), numpy.uint8).reshape(height, width)
        return colours.table(vga)[pixels]

    def _framebuffer(self, vga: Vga, vbe: BochsVbe) -> numpy.ndarray:
        width, height, bits, line, start = vbe.mode
        size = bits + 7 >> 3
        used = line * (height - 1) + width * size
        start = min(start, self.facts.video_size - used)
        data = self._memory.read(self.facts.video + start, used) + bytes(line - width * size)
        lines = numpy.frombuffer(data, numpy.uint8).reshape(height, line)[:, : width * size]
        pixels = lines.reshape(height, width, size)
        if bits == 8:
            return colours.table(vga, vbe.wide_dac)[pixels[:, :, 0]]
        if size == 2:
            return colours.of_words(numpy.ascontiguousarray(pixels).view("<u2")[:, :, 0], bits)
        return pixels[:, :, 2::-1]
