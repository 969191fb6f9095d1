"""Code that the prompt shows, disassembled: vm.disassemble() prints address, mode, bytes and a name (FORM of
vmm/debug/instructions.py), and capstone's text takes the name's place on its way to the terminal.

Names of addresses, which only the monitor knows, stay. A line is held back until its end where it begins like one of
these; flush() gives it up when nothing follows.
"""

import re

import capstone

_LINE = re.compile(
    rb"(?P<head>[ =>]*0x(?P<gva>[0-9a-f]{16}) (?P<bits>16|32|64): )"
    rb"(?P<code>(?:[0-9a-f]{2} )+) *(?P<text>[^\r\n]*)(?P<end>\r*)"
)
_BEGINNING = re.compile(rb"[ =>]{0,8}(0(x([0-9a-f]{0,16}( ((16|32|64)?(: .*|:)?|1|3|6)?)?)?)?)?\r*", re.DOTALL)
_TARGET = re.compile(r"0x[0-9a-f]+")
_MODES = {b"16": capstone.CS_MODE_16, b"32": capstone.CS_MODE_32, b"64": capstone.CS_MODE_64}
_WIDTH = 30  # columns of the bytes
_MOST = 400  # bytes of a line that are held back


class Disassembly:
    """feed() returns what is to be shown of more output."""

    def __init__(self):
        self._engines = {bits: capstone.Cs(capstone.CS_ARCH_X86, mode) for bits, mode in _MODES.items()}
        self._line = b""

    @property
    def waits(self) -> bool:
        """Whether something is held back."""
        return bool(self._line)

    def feed(self, data: bytes) -> bytes:
        *lines, last = (self._line + data).split(b"\n")
        shown = b"".join(self.line(line) + b"\n" for line in lines)
        if last and len(last) <= _MOST and _BEGINNING.fullmatch(last):
            self._line = last
            return shown
        self._line = b""
        return shown + last

    def flush(self) -> bytes:
        """Nothing follows for now: what is held back."""
        held, self._line = self._line, b""
        return held

    def line(self, line: bytes) -> bytes:
        """A whole line, disassembled where it is one of code."""
        found = _LINE.fullmatch(line)
        if not found:
            return line
        code = bytes.fromhex(found["code"].decode())
        decoded = next(self._engines[found["bits"]].disasm(code, int(found["gva"], 16), 1), None)
        if decoded is None or decoded.size != len(code):
            return line
        text = f"{decoded.mnemonic} {decoded.op_str}".strip()
        for name in _names(found["text"].decode(errors="replace")):
            text = _TARGET.sub(lambda at, name=name: name if at[0] == name.split()[0] else at[0], text)
        relative = re.search(r"\[rip ([+-]) (0x[0-9a-f]+|\d+)\]", text)
        if relative:
            offset = int(relative[2], 0) * (1 if relative[1] == "+" else -1)
            text += f"  # {(decoded.address + decoded.size + offset) & (1 << 64) - 1:#x}"
        shown = " ".join(f"{byte:02x}" for byte in code)
        return found["head"] + f"{shown:<{_WIDTH}} {text}".encode() + found["end"]


def _names(text: str) -> list[str]:
    """Addresses that the monitor has written with a name behind."""
    return re.findall(r"0x[0-9a-f]+ [^ ]+", text)
