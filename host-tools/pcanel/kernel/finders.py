"""Gives a drgn.Program of a Linux what debugging symbols would: types, objects, symbols.

They come from the kernel's own memory and are asked last: with debugging symbols loaded those answer first.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence

import drgn
from drgn.helpers.linux.kallsyms import load_module_kallsyms, load_vmlinux_kallsyms
from drgn.helpers.linux.list import list_for_each_entry

from pcanel.kernel.btf import Btf
from pcanel.kernel.variables import table

_NAME = "pcanel"
_KERNEL = 1 << 63  # where a kernel's half of the address space begins
_LARGEST = 1 << 20  # bytes of a module's section
_MODULES = 1024


def add(prog: drgn.Program) -> None:
    """Registers the finders; nothing is read before the first question."""
    prog.register_symbol_finder(_NAME, _Symbols(load_vmlinux_kallsyms), enable_index=-1)
    prog.register_symbol_finder(f"{_NAME} modules", _Symbols(load_module_kallsyms), enable_index=-1)
    types = Types(prog)
    prog.register_type_finder(_NAME, types.find_type, enable_index=-1)
    prog.register_object_finder(_NAME, types.find_object, enable_index=-1)


def bound(prog: drgn.Program) -> None:
    """Gives drgn the range of the kernel's text, if no debugging symbols do: else it does not use the kernel's ORC."""
    try:
        module = prog.main_module("kernel", create=True)
        if module.address_range is None:
            module.address_range = (prog.symbol("_stext").address, prog.symbol("_end").address)
    except (LookupError, ValueError):
        pass


class _Symbols:
    """Symbols that are read at the first question: those of the kernel, or of its modules."""

    def __init__(self, load: Callable[[drgn.Program], drgn.SymbolIndex]):
        self._load = load
        self._index: Callable | None = None

    def __call__(self, prog: drgn.Program, name: str | None, address: int | None, one: bool) -> Sequence[drgn.Symbol]:
        if address is not None and address < _KERNEL:
            return []  # kallsyms has the offsets of per-CPU variables from 0 on: NULL would have a name
        if self._index is None:
            self._index = _nothing  # reading them may ask for symbols
            try:
                self._index = self._load(prog)
            except (LookupError, ValueError, drgn.FaultError):
                self._index = None  # its memory may come yet
                return []
        return self._index(prog, name, address, one)


def _nothing(_prog, _name, _address, _one) -> Sequence[drgn.Symbol]:
    return []


class Types:
    """Types and objects by name. BTF is read at the first question; a kernel without answers none."""

    def __init__(self, prog: drgn.Program):
        self._prog = prog
        self._btf: Btf | None = None
        self._read = False
        self._modules: list[Btf] | None = None
        self._variables = table()

    @property
    def btf(self) -> Btf | None:
        if not self._read:
            try:
                start = self._prog.symbol("__start_BTF").address
                size = self._prog.symbol("__stop_BTF").address - start
            except LookupError:
                return None  # while symbols themselves are read, or for good
            self._read = True
            with contextlib.suppress(ValueError, drgn.FaultError):
                self._btf = Btf(self._prog, self._prog.read(start, size))
        return self._btf

    @property
    def sections(self) -> Iterator[Btf]:
        """The kernel's, and those of the modules that were there at the first question that the kernel's left open."""
        if self.btf:
            yield self.btf
            if self._modules is None:
                self._modules = []  # reading them asks for types
                with contextlib.suppress(LookupError, ValueError, drgn.FaultError):
                    self._modules = list(self._read_modules())
            yield from self._modules

    def _read_modules(self) -> Iterator[Btf]:
        """btf_modules: the list that the kernel itself keeps (kernel/bpf/btf.c)."""
        prog = self._prog
        head = drgn.Object(prog, "struct list_head", address=prog.symbol("btf_modules").address)
        entries = list_for_each_entry("struct btf_module", head.address_of_(), "list")
        for entry in itertools.islice(entries, _MODULES):
            size = entry.btf.data_size.value_()
            if size <= _LARGEST:
                with contextlib.suppress(ValueError):
                    yield Btf(prog, prog.read(entry.btf.data.value_(), size), self.btf)

    def find_type(self, _prog, kinds, name: str, filename: str | None) -> drgn.Type | None:
        """As drgn.Program.register_type_finder() takes it."""
        if filename:
            return None
        return next((found for each in self.sections if (found := each.find_type(kinds, name)) is not None), None)

    def find_object(self, prog, name: str, flags, filename: str | None) -> drgn.Object | None:
        """As drgn.Program.register_object_finder() takes it."""
        if not self.btf or filename:
            return None
        if drgn.FindObjectFlags.VARIABLE & flags:
            kind = self.btf.find_variable(name) or self._variable(name)
            if kind is not None:
                return self._at(name, kind)
        for section in self.sections:
            found = self._find(section, name, flags)
            if found is not None:
                return found
        return None

    def _find(self, section: Btf, name: str, flags) -> drgn.Object | None:
        """An enumerator or a function of a section."""
        if drgn.FindObjectFlags.CONSTANT & flags:
            found = section.find_constant(name)
            if found is not None:
                return found
        if drgn.FindObjectFlags.FUNCTION & flags:
            kind = section.find_function(name)
            if kind is not None:
                return self._at(name, kind)
        return None

    def _at(self, name: str, kind: drgn.Type) -> drgn.Object | None:
        try:
            return drgn.Object(self._prog, kind, address=self._prog.symbol(name).address)
        except LookupError:
            return None

    def _variable(self, name: str) -> drgn.Type | None:
        """The first type in the table that this kernel has."""
        for text in self._variables.get(name, ()):
            try:
                if not text.endswith("[]"):
                    return self._prog.type(text)
                element = self._prog.type(text[:-2])
                return self._prog.array_type(element, self._prog.symbol(name).size // drgn.sizeof(element))
            except LookupError:
                continue
        return self._timekeeper() if name == "tk_core" else None

    def _timekeeper(self) -> drgn.Type | None:
        """Of tk_core before Linux 6.13, a struct without a name: a sequence count, then struct timekeeper."""
        try:
            seq, keeper = self._prog.type("seqcount_raw_spinlock_t"), self._prog.type("struct timekeeper")
        except LookupError:
            return None
        at = -(-drgn.sizeof(seq) // 8) * 8
        members = [drgn.TypeMember(seq, "seq"), drgn.TypeMember(keeper, "timekeeper", 8 * at)]
        return self._prog.struct_type(None, at + drgn.sizeof(keeper), members)
