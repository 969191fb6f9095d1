"""vm.symbols: addresses by name and names by address, of what a guest runs.

    >>> vms['linux'].symbols["do_sys_openat2"]
    18446744071583049216
    >>> vms['linux'].symbols.at(vms['linux'].vcpu.rip)
    'default_idle+0xb'
    >>> vms['linux'].symbols.search("do_sys_open*")

The symbols of a Linux guest are read from its own memory (vmm/insight/kallsyms.py), those of another from the ELF file
that it booted (vmm/insight/elfsyms.py); a file that `symbols` in the description names replaces either. They are read
at the first use, and again after the guest has started anew.
"""

from vmm.insight import elfsyms, kallsyms, vmcoreinfo
from vmm.loaders.elf import MAGIC
from vmm.vtx.x86 import IA32_LSTAR, PAGE

_FOUND = 100  # names that search() returns
_NEAR = 3
_TABBED = 400
_SHOWN = 4
_HIGH = 0x1FFFFFFFF  # the upper bits of addresses of modules


def matches(name, pattern):
    """Whether a pattern fits a name: `*` stands for any characters, `?` for one."""
    at = start = 0
    star = -1
    while at < len(name):
        if start < len(pattern) and pattern[start] == "*":
            star = start
            back = at
            start += 1
        elif start < len(pattern) and pattern[start] in ("?", name[at]):
            at += 1
            start += 1
        elif star >= 0:
            back += 1
            at = back
            start = star + 1
        else:
            return False
    return all([character == "*" for character in pattern[start:]])


def _likeness(name, other):
    """How much of two names is the same at their beginnings and ends."""
    least = min(len(name), len(other))
    start = 0
    while start < least and name[start] == other[start]:
        start += 1
    end = 0
    while end < least - start and name[-1 - end] == other[-1 - end]:
        end += 1
    return 2 * (start + end) - max(len(name), len(other))


def nearest(name, names, count=_NEAR):
    """The `count` names that are most like `name`, best first."""
    ranked = sorted([(-_likeness(name, other), other) for other in set(names)])
    return [other for _, other in ranked[:count]]


def _parts(pattern):
    """(the text before the first * or ? of a pattern, its longest text without these)."""
    pieces = pattern.replace("?", "*").split("*")
    longest = ""
    for piece in pieces:
        if len(piece) > len(longest):
            longest = piece
    return pieces[0], longest


class Symbols:
    """One VM's symbols. symbols[name]: gva; KeyError names the nearest symbols, or says that several have the name.

    Every method raises ValueError where the guest has no symbols now, and says why.
    """

    def __init__(self, vm):
        self._vm = vm
        self._source = None
        self._starts = -1

    def _load(self):
        """The source of the symbols now: a Kallsyms, ElfSymbols, SystemMap or Moved."""
        vm = self._vm
        vm.memory.size  # raises where the guest has been destroyed
        if not self.loaded:
            self._source = None
            self._source = _source(vm)
            self._starts = vm.starts
        return self._source

    @property
    def loaded(self):
        """Whether they have been read in this run of the guest."""
        return self._source is not None and self._starts == self._vm.starts

    def forget(self):
        """Read them anew at the next use: another kernel runs (kexec)."""
        self._source = None

    def __getitem__(self, name):
        found = self.all(name)
        if len(found) == 1:
            return found[0]
        if found:
            places = ", ".join(["%#x" % gva for gva in found[:_SHOWN]])
            if len(found) > _SHOWN:
                places += ", ..."
            raise KeyError("%s is the name of %d symbols: %s (symbols.all has them)" % (name, len(found), places))
        near = nearest(name, self._load().similar(name))
        raise KeyError("no symbol %s%s" % (name, "; there are " + ", ".join(near) if near else ""))

    def own(self, name):
        """As all(), without those of Linux's modules."""
        return self._load().lookup(name)

    def all(self, name):
        """Addresses of all symbols of a name, ascending: static functions may share one. Empty: there is none.

        A module's is found where the kernel itself has none of the name, or as "name [module]".
        """
        found = self.own(name)
        modules = None if found else self._modules()
        return modules.lookup(name) if modules else found

    def is_data(self, name):
        """Whether a name is known to be of data, and of no code: True for "jiffies". KeyError as symbols[name]."""
        gva = self[name]
        if self.own(name):
            return self._load().is_data(name, gva)
        return self._modules().is_data(name, gva)

    def _modules(self):
        """The symbols of a Linux's modules (vmm/insight/linux/module_symbols.py), or None."""
        try:
            return self._vm.kernel.module_symbols
        except ValueError:
            return None

    def get(self, name, default=None):
        """As symbols[name]; `default` where there is none, or several."""
        found = self.all(name)
        return found[0] if len(found) == 1 else default

    def __contains__(self, name):
        return bool(self.all(name))

    def __len__(self):
        return len(self._load())

    def __getattr__(self, name):
        """symbols.NAME, as symbols["NAME"], for names that are not those of these methods."""
        if name.startswith("__"):  # looked up by Python itself
            raise AttributeError(name)
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.value) from None

    def complete_keys(self, typed):
        """For Tab: names that begin so; of very many, some."""
        found = []
        for name, _ in self._load().starting(typed) if typed else ():
            found.append(name)
            if len(found) == _TABBED:
                break
        return found

    complete_attributes = complete_keys

    def around(self, gva):
        """(name, its address, where the next one begins, or None) of the symbol that an address lies in, or None.

        The name of a module's symbol is "name [module]".
        """
        if not isinstance(gva, int):
            raise ValueError("%r is no address" % (gva,))
        found = self._load().around(gva)
        if found is None and gva >> 31 == _HIGH:
            modules = self._modules()
            found = modules.around(gva) if modules else None
        return found

    def at(self, gva):
        """The name of an address, such as "do_sys_openat2+0x1c"; None: it lies in no symbol."""
        found = self.around(gva)
        return self.text(found, gva) if found is not None else None

    def text(self, found, gva):
        """The text of an address as of at(); found: of around()."""
        name, start, _ = found
        if gva == start:
            return name
        name, space, module = name.partition(" ")
        return "%s+%#x%s%s" % (name, gva - start, space, module)

    def behind(self, gva):
        """The text behind an address in messages: " do_idle+0x1c"; "" where symbols are not loaded. It never raises."""
        try:
            name = self.at(gva) if self.loaded else None
        except (ValueError, MemoryError):  # invalid tables; a full heap is reported without names
            name = None
        return " " + name if name else ""

    def search(self, pattern, most=_FOUND):
        """[(name, gva)], at most `most`, of the symbols whose name fits a pattern with * and ?, or has it as a part.

        A pattern that begins with a name is fast where the kernel has a table of names in their order.
        """
        source = self._load()
        if "*" not in pattern and "?" not in pattern:
            pattern = "*" + pattern + "*"
        first, longest = _parts(pattern)
        found = []
        for known in (source, self._modules()):
            if known is None:
                break
            for name, gva in known.starting(first) if first else known.containing(longest):
                if matches(name.partition(" ")[0], pattern):
                    found.append((name, gva))
                    if len(found) >= most:
                        return found
        return found

    def __repr__(self):
        source = self._load()
        return "<%d symbols of guest %s>" % (len(source), self._vm.name)


def _source(vm):
    """The source of a VM's symbols: the file that its description names; else for a Linux its own table, or the ELF
    file where that fails; for another guest the other way around."""
    if vm.config.get("symbols"):
        return _of_given(vm, vm.config["symbols"])
    linux = (vm.config.get("protocol") or "linux") == "linux"
    why = []
    for way in (_of_linux, _of_file) if linux else (_of_file, _of_linux):
        try:
            return way(vm)
        except ValueError as error:
            why.append(str(error))
    raise ValueError("guest %s has no symbols: %s; %s" % (vm.name, why[0], why[1]))


def _of_given(vm, name):
    """The symbols of a file of the description; of a Linux with KASLR moved to where LSTAR says that the kernel is."""
    if name not in vm.blobs:
        raise ValueError("guest %s has no symbols: there is no boot module %s" % (vm.name, name))
    blob = vm.blobs[name]
    if bytes(blob[:4]) == MAGIC:
        found = elfsyms.ElfSymbols(name, blob)
    else:
        from vmm.insight.systemmap import SystemMap

        found = SystemMap(name, blob)
    entry, text = found.lookup("entry_SYSCALL_64"), found.lookup("_stext")
    if len(entry) != 1 or len(text) != 1:
        return found
    live = vm.msrs.read(vm.vcpus[0], IA32_LSTAR)
    if not live:
        raise ValueError("guest %s has only begun to boot: it is not known where its kernel is" % vm.name)
    by = live - entry[0]
    if by & (PAGE - 1):
        raise ValueError("guest %s runs another kernel than %s is of" % (vm.name, name))
    if not by:
        return found
    from vmm.insight.moved import Moved

    return Moved(found, min(entry[0], text[0]) & ~0x1FFFFF, by)


def _of_linux(vm):
    """A Linux's own table: by VMCOREINFO, or by a search where that does not have its place or does not exist yet."""
    entry = vmcoreinfo.entry_of(vm)
    image = None
    try:
        image = vmcoreinfo.find(vm.memory, entry)
        if image.has("kallsyms_names"):
            return kallsyms.Kallsyms(image)
    except ValueError as error:
        if image or not entry:
            raise
        why = str(error)
    from vmm.insight import kallsyms_search

    if image is None and not kallsyms_search.is_entry(entry):
        raise ValueError(why)
    if image is not None:
        return kallsyms_search.find(image, entry if image.near(entry) else image.symbol("_stext"))
    try:
        return kallsyms_search.of(vm, entry)
    except ValueError as error:
        raise ValueError("%s; %s" % (why, error))


def _of_file(vm):
    name = vm.config.get("kernel")
    if name not in vm.blobs:
        raise ValueError("it has no image")
    return elfsyms.ElfSymbols(name, vm.blobs[name])
