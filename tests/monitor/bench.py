"""Guests of a test: assembled here, made at the monitor's prompt, read back from their memory.

A guest stands still until go(), until() or halted(). It is 64-bit code at CODE in flat memory
(interrupts off, no IDT unless the test gives handlers), or 16-bit code at REAL. It shows what
it saw by storing it from DATA on.
"""

from __future__ import annotations

import itertools
import struct

from pcanel.assemble import assemble
from pcanel.monitor import Monitor
from pcanel.repl import RemoteError

CODE = 0x100000
HANDLERS = 0x120000
STACK = 0x1F0000
DATA = 0x200000
IDT = 0x210000
IDTR = 0x20F000
REAL = 0x7C00
MEMORY = 4 << 20
_HANDLER_SIZE = 0x100
_CODE_SELECTOR = 0x10


_X2APIC = """
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
"""


def start_others(address: int) -> str:
    """Guest code: x2APIC mode on, and the other processors start in real mode at this address, a page below 1 MiB."""
    return f"""{_X2APIC}
    mov ecx, 0x830
    xor edx, edx
    mov eax, 0xc4500
    wrmsr
    mov eax, {0xC4600 | address >> 12:#x}
    wrmsr
"""


def deadline_timer(vector: int) -> str:
    """Guest code: x2APIC mode on, and the local APIC's timer in TSC-deadline mode at this vector."""
    return f"""{_X2APIC}
    mov ecx, 0x80f
    mov eax, 0x1ff
    xor edx, edx
    wrmsr
    mov ecx, 0x832
    mov eax, {0x40000 | vector:#x}
    wrmsr
"""


_PRELUDE = """
import time, gc, sys
from micropython import heap_lock, heap_unlock
def wait(vm, test, ms=20000):
    "Let guests run until test() or until the time is up; what test() says then."
    end = time.ticks_add(time.ticks_ms(), ms)
    while not test() and time.ticks_diff(end, time.ticks_ms()) > 0:
        time.sleep_ms(1)
    return bool(test())
"""


class Bench:
    """The monitor's prompt, with words of these tests."""

    def __init__(self, monitor: Monitor):
        self.monitor = monitor
        self._names = (f"t{i}" for i in itertools.count())
        self._begin = len(monitor.console("repl").text())
        self.exec(_PRELUDE)

    def exec(self, code: str, timeout: float = 120) -> str:
        return self.monitor.exec(code, timeout)

    def eval(self, expression: str):
        return self.monitor.eval(expression, 120)

    def refused(self, code: str) -> str:
        """The last line of the traceback that `code` ends with."""
        try:
            output = self.exec(code)
        except RemoteError as error:
            return str(error).splitlines()[-1]
        raise AssertionError(f"nothing was raised; printed: {output}")

    def alive(self) -> bool:
        return self.eval("6 * 7") == 42

    def said(self) -> str:
        """What the prompt has shown in this file of tests."""
        return self.monitor.console("repl").text()[self._begin :]

    def reset(self, timeout: float) -> None:
        """The monitor as it boots, by a soft reset; there must be no guests."""
        console = self.monitor.console("repl")
        self.exec(f"print('last of {self._begin}')")
        console.expect(rf"last of {self._begin}\n", timeout)
        console.expect(r"^>>> $", timeout)
        console.send("\x04")
        console.expect(r"^MPY: soft reboot\n", timeout)
        console.expect(r"^>>> $", timeout)

    def run(self, ms: int) -> str:
        """Let guests run for a while; what was printed meanwhile."""
        return self.exec(f"time.sleep_ms({ms})")

    def guest(self, source: str, **options) -> Guest:
        return Guest(self, next(self._names), source, **options)


class Guest:
    """One guest. data: {gpa: bytes} put into memory before it runs; handlers: {vector: source}; blobs: boot modules."""

    def __init__(
        self, bench: Bench, name: str, source: str, bits: int = 64, data=(), handlers=(), start=True, blobs=(), **config
    ):
        self.bench = bench
        self.name = name
        self.ref = f"vms[{name!r}]"
        self._data = dict(data)
        address = REAL if bits == 16 else CODE
        if bits == 64:
            source = f"mov rsp, {STACK:#x}\n" + (f"lidt [{IDTR:#x}]\n" if handlers else "") + source
        if handlers:
            self._add_handlers(dict(handlers))
        config = {
            "name": name, "memory": MEMORY, "protocol": "flat", "kernel": "code", "address": address,
            "mode": "real" if bits == 16 else "long", "console": "none", **config,
        }  # fmt: skip
        blobs = {"code": assemble(source, bits, address), **dict(blobs)}
        bench.exec(f"monitor.create({config!r}, {blobs!r})")
        if start:
            self.start()

    def _add_handlers(self, handlers) -> None:
        table = bytearray(256 * 16)
        for i, vector in enumerate(handlers):
            at = HANDLERS + i * _HANDLER_SIZE
            code = assemble(handlers[vector], 64, at)
            assert len(code) <= _HANDLER_SIZE
            self._data[at] = code
            struct.pack_into(
                "<HHBBHI", table, 16 * vector, at & 0xFFFF, _CODE_SELECTOR, 0, 0x8E, at >> 16 & 0xFFFF, at >> 32
            )
        self._data[IDT] = bytes(table[: 16 * (max(handlers) + 1)])
        self._data[IDTR] = struct.pack("<HQ", len(table) - 1, IDT)

    def start(self) -> None:
        lines = [f"{self.ref}.start()"]
        lines += [f"{self.ref}.memory.write({gpa:#x}, {data!r})" for gpa, data in self._data.items()]
        # A guest of priority above 0 would run before its data is there.
        self.exec("\n".join(["with still():", *("    " + line for line in lines), f"    {self.ref}.pause()"]))

    def go(self) -> None:
        """Let it run whenever the prompt waits; until() does that by itself."""
        self.exec("vm.resume()")

    def exec(self, code: str, timeout: float = 120) -> str:
        """Run code with `vm` and `vcpu` of this guest."""
        return self.bench.exec(f"vm = {self.ref}\nvcpu = vm.vcpu\n{code}", timeout)

    def refused(self, code: str) -> str:
        return self.bench.refused(f"vm = {self.ref}\nvcpu = vm.vcpu\n{code}")

    def eval(self, expression: str):
        return self.bench.eval(f"(lambda vm, vcpu: {expression})({self.ref}, {self.ref}.vcpu)")

    def policy(self, event: str, body: str, name: str = "p") -> str:
        """Attach a policy with this body (lines of a function of vcpu)."""
        lines = "\n".join("    " + line for line in body.strip("\n").split("\n"))
        return self.exec(f"@vm.on({event})\ndef {name}(vcpu):\n{lines}")

    def word(self, index: int = 0) -> int:
        """The 64-bit word that the guest stored at DATA + 8 * index."""
        return self.eval(f"vm.memory.read_u64({DATA + 8 * index:#x})")

    def words(self, count: int, first: int = 0) -> tuple[int, ...]:
        data = self.eval(f"bytes(vm.memory.read({DATA + 8 * first:#x}, {8 * count}))")
        return struct.unpack(f"<{count}Q", data)

    def until(self, test: str, ms: int = 5000) -> str:
        """Let guests run until `test` (an expression of vm and vcpu) holds; returns what was printed."""
        return self.exec(
            "if vm.why == 'by pause()': vm.resume()\n"
            f"if not wait(vm, lambda: {test}, {ms}): raise RuntimeError('never: ' + {test!r} + ' ' + repr(vm))"
        )

    def halted(self) -> str:
        """Let it run up to its HLT."""
        return self.until("vm.state == 'halted'")

    @property
    def state(self) -> str:
        return self.eval("vm.state")

    def destroy(self) -> None:
        self.bench.exec(f"if {self.name!r} in vms: {self.ref}.destroy()")
