"""Symbols of a kernel's modules: each has an ELF symbol table in the kernel's memory (struct mod_kallsyms).

Names have the module's behind them: "loop_init [loop]". Limit: 2^17 symbols of a module. Source: Linux,
kernel/module/kallsyms.c.
"""

import struct

import micropython
from micropython import const

from vmm.insight.elfsyms import STT_OBJECT
from vmm.insight.linux import modules
from vmm.insight.vmcoreinfo import MAP64

_SYMBOL = const(24)  # bytes of an Elf64_Sym
_MOST = const(1 << 17)  # symbols
_TABLE = const(170)  # of them read at once, a page
_NAME = const(128)  # bytes


@micropython.viper
def _nearest(words: ptr32, count: int, gva: int, best: ptr32) -> int:
    """Narrow best [value low, high, next low, high] to the symbols around gva; the number of the lower one, or -1.

    Symbols that are not defined here have section 0.
    """
    value = int(best[0]) | int(best[1]) << 32
    after = int(best[2]) | int(best[3]) << 32
    found = -1
    i = 0
    at = 0
    while i < count:
        address = int(words[at + 2]) | int(words[at + 3]) << 32
        if words[at] and int(words[at + 1]) >> 16:
            if address <= gva:
                if address > value:
                    value = address
                    found = i
            elif address < after:
                after = address
        at += 6
        i += 1
    best[0] = value & 0xFFFFFFFF
    best[1] = value >> 32
    best[2] = after & 0xFFFFFFFF
    best[3] = after >> 32
    return found


class ModuleSymbols:
    """The symbols of the modules of one kernel (vmm.insight.kernel.Kernel)."""

    def __init__(self, kernel):
        self._kernel = kernel

    def _tables(self, only=None):
        """Yield (name, gva of the symbols, how many, gva of the strings) of each module, or of one."""
        for module in modules.each(self._kernel):
            if only in (None, module.name):
                yield self._table(module)

    def _table(self, module):
        table = module.kallsyms
        count = table.num_symtab
        if count > _MOST:
            raise ValueError("the module %s says that it has %d symbols" % (module.name, count))
        return module.name, int(table.symtab), count, int(table.strtab)

    def _pieces(self, gva, count):
        """Yield (number of the first, bytes) of a table of symbols."""
        for first in range(0, count, _TABLE):
            yield first, self._kernel.space.read(gva + _SYMBOL * first, _SYMBOL * min(_TABLE, count - first))

    def _text(self, gva):
        """A symbol's name; "" where it cannot be read."""
        space = self._kernel.space
        parts = b""
        while len(parts) < _NAME and b"\0" not in parts:
            parts += space.read(gva + len(parts), 64 - (gva + len(parts)) % 64)
        name = parts.split(b"\0", 1)[0]
        return "".join([chr(byte) if 32 < byte < 127 else "?" for byte in name])

    def around(self, gva):
        """("name [module]", address, end) of the symbol that a gva lies in, or None."""
        module = modules.containing(self._kernel, gva) if gva >= MAP64 else None
        if module is None:
            return None
        name, symbols, count, strings = self._table(module)
        base, size = [part for part in modules.parts(module) if part[0] <= gva < part[0] + part[1]][0]
        best = bytearray(struct.pack("<QQ", base - 1, base + size))
        found = -1
        for first, data in self._pieces(symbols, count):
            number = _nearest(data, len(data) // _SYMBOL, gva, best)
            if number >= 0:
                found = struct.unpack_from("<I", data, _SYMBOL * number)[0]
        if found < 0:
            return None
        start, end = struct.unpack("<QQ", best)
        return "%s [%s]" % (self._text(strings + found), name), start, end

    def _all(self, fits, only=None, kind=None):
        """Yield ("name [module]", address) of each symbol whose name fits(). only: a module's name; kind: STT_..."""
        for module, symbols, count, strings in self._tables(only):
            for _, data in self._pieces(symbols, count):
                for at in range(0, len(data), _SYMBOL):
                    name, info, _, section, gva, _ = struct.unpack_from("<IBBHQQ", data, at)
                    if name and section and kind in (None, info & 15):
                        text = self._text(strings + name)
                        if fits(text):
                            yield "%s [%s]" % (text, module), gva

    def lookup(self, name):
        """Addresses of all symbols of a name, "name" or "name [module]", ascending."""
        return sorted(self._called(name))

    def is_data(self, name, gva):
        """Whether the symbol of a name at an address is known to be no code."""
        return gva in self._called(name, STT_OBJECT)

    def _called(self, name, kind=None):
        name, _, module = name.partition(" [")
        only = module[:-1] if module.endswith("]") else None
        return [gva for _, gva in self._all(lambda text: text == name, only, kind)]

    def containing(self, part):
        """("name [module]", address) of each symbol with `part` in its name."""
        return self._all(lambda text: part in text)

    def starting(self, prefix):
        """("name [module]", address) of each symbol whose name starts so."""
        return self._all(lambda text: text.startswith(prefix))
