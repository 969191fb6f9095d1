"""VMCOREINFO: the facts that a Linux kernel has for tools that read its memory; and the kernel's image, found by it.

It is an ELF note at the beginning of a page of its own: "KEY=value" lines. The kernel's image is contiguous in
guest-physical memory, so that it can be read without page tables, whatever CR3 is. Limits: kernels with
CONFIG_VMCORE_INFO (CRASH_CORE, as it was called), once they have made the note, early in their boot; 32-bit kernels
with the usual split of 3 GiB to 1. Source: Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst.
"""

import struct

import cpu
import micropython
from micropython import const

from vmm.vtx.x86 import CR0_PG, EFER_LMA, IA32_LSTAR, IA32_SYSENTER_EIP, MASK32, MASK64, PAGE

# The note's first words: sizes of name and text, type; then the name
_NAME_SIZE = const(11)
_VMCO = const(0x4F434D56)
_REIN = const(0x4E494552)
_TEXT = const(24)  # offset of the text
_WORDS = const(PAGE >> 2)

MAP64 = const(0xFFFFFFFF80000000)  # gva of what lies at phys_base
MAP32 = const(0xC0000000)
_IMAGE = const(1 << 30)  # bytes of address space that a kernel's image has at most
_BELOW = const(1 << 24)  # of it before _stext: entry code, where that comes first
_NAMES = const(0x200)  # bytes of init_uts_ns in which its release is
_MACHINES = b"x86_64", b"i686", b"i586"
_TRIED = const(64)  # notes
_NEWLINE = const(10)
_PAGES = const(64)  # between two calls of cpu.look(), where due guests of higher priority preempt


@micropython.viper
def _note(words: ptr32, page: int, pages: int) -> int:
    """The number of the first page from `page` on that begins as the note does; `pages` where none does."""
    look = cpu.look
    while page < pages:
        if page & (_PAGES - 1) == 0:
            look()
        at = page * _WORDS
        if words[at + 3] == _VMCO and words[at + 4] == _REIN and words[at] == _NAME_SIZE:
            return page
        page += 1
    return page


# bytes.find() takes 75,000 for all of the text, without a point at which it is preempted.
@micropython.viper
def _behind(text: ptr8, size: int, key: ptr8, wanted: int) -> int:
    """The offset behind key[:wanted] where a line begins with it; -1: none does."""
    look = cpu.look
    at = 0
    while at + wanted <= size:
        look()
        i = 0
        while i < wanted and text[at + i] == key[i]:
            i += 1
        if i == wanted:
            return at + wanted
        while at < size and text[at] != _NEWLINE:
            at += 1
        at += 1
    return -1


class Image:
    """A Linux kernel in guest memory. release: text, as `uname -r` says; bits: 32 or 64; mask: of its addresses."""

    def __init__(self, memory, text, changed=False):
        """text: of the note, bytes. ValueError where it is not of a kernel in this memory. changed: the release in
        init_uts_ns may have been changed."""
        self._memory = memory
        self._text = text
        self.release = self.value("OSRELEASE")
        base = self._value(b"NUMBER(phys_base)")
        self.bits = 64 if base is not None else 32
        self.mask = MASK64 if base is not None else MASK32
        self._shift = MAP64 - _integer(base, 10) if base is not None else MAP32
        self._lowest = self.symbol("_stext") - _BELOW
        names = bytes(self.view(self.symbol("init_uts_ns"), _NAMES))
        known = _MACHINES if changed else (self.release.encode(),)
        if not any([b"\0" + name + b"\0" in names for name in known]):
            raise ValueError("VMCOREINFO tells of Linux %s, which is not there" % self.release)

    @property
    def text(self):
        """The text of the note; a character that is no ASCII is a question mark."""
        return "".join([chr(byte) if byte == _NEWLINE or 32 <= byte < 127 else "?" for byte in self._text])

    def _value(self, key):
        key += b"="
        start = _behind(self._text, len(self._text), key, len(key))
        if start < 0:
            return None
        end = self._text.find(b"\n", start)
        return self._text[start : end if end >= 0 else len(self._text)]

    def value(self, key):
        """The text behind a key, such as "OSRELEASE". ValueError where it is not there."""
        value = self._value(key.encode())
        if value is None:
            raise ValueError("VMCOREINFO has no %s" % key)
        return "".join([chr(byte) if 32 <= byte < 127 else "?" for byte in value[:64]])

    def symbol(self, name):
        """The gva of one of the few symbols that VMCOREINFO names. ValueError."""
        return _integer(self.value("SYMBOL(%s)" % name), 16) & self.mask

    def has(self, name):
        """Whether VMCOREINFO has SYMBOL(name)."""
        return self._value(b"SYMBOL(" + name.encode() + b")") is not None

    def view(self, gva, size, least=None):
        """A memoryview of `size` bytes of the image at a gva; at least `least` where memory ends. ValueError."""
        gpa = (gva & self.mask) - self._shift
        for base, length, _ in self._memory.segments:
            if base <= gpa < base + length:
                room = min(size, base + length - gpa)
                if room >= (size if least is None else least):
                    return self._memory.view(gpa, room)
        raise ValueError("the kernel's tables say %#x, which is outside its memory" % (gva & self.mask))

    def near(self, gva):
        """Whether a gva can lie in the image."""
        return 0 <= gva - self._lowest < _IMAGE

    def is_live(self, entry):
        """Whether it is the kernel that runs. entry: as of find()."""
        return self.near(entry) if entry else self.bits == 32


def _integer(text, base):
    try:
        return int(text, base)
    except ValueError:
        raise ValueError("VMCOREINFO has %s where a number belongs" % text)


def find(memory, entry):
    """Return the Image of the Linux that runs in a GuestMemory.

    entry: entry_of(), which distinguishes it from an earlier kernel, or one of a nested guest. ValueError where there
    is none; of several notes that do not fit, it gives the last one's reason.
    """
    why = "there is no VMCOREINFO in guest memory: no Linux, or one that has only begun to boot"
    texts = []
    for base, size, _ in memory.segments:
        pages = size // PAGE
        words = memory.view(base, size)
        page = _note(words, 0, pages)
        while page < pages and len(texts) < _TRIED:
            length = struct.unpack_from("<I", words, page * PAGE + 4)[0]
            texts.append(memory.read(base + page * PAGE + _TEXT, min(length, PAGE - _TEXT)))
            image, why = _live(memory, texts[-1], entry, False)
            if image:
                return image
            page = _note(words, page + 1, pages)
    for text in texts:
        image, _ = _live(memory, text, entry, True)
        if image:
            return image
    raise ValueError(why)


def _live(memory, text, entry, changed):
    """(the Image of the kernel that runs, ""), or (None, why there is none)."""
    try:
        image = Image(memory, text, changed)
        if image.is_live(entry):
            return image, ""
        another = "another kernel runs" if entry else "no kernel runs at its addresses yet"
        return None, "Linux %s is in guest memory, but %s" % (image.release, another)
    except ValueError as error:
        return None, str(error)


def of(vm):
    """The Image of the Linux that a VM runs. ValueError."""
    return find(vm.memory, entry_of(vm))


def entry_of(vm):
    """A gva in the text of the kernel that runs: its entry by SYSCALL, or by SYSENTER where it has 32 bits, or early in
    its boot RIP. 0: neither yet."""
    vcpu = vm.vcpus[0]
    entry = vm.msrs.read(vcpu, IA32_LSTAR)
    rip = vcpu.rip & MASK64
    if entry or rip >= MAP64:
        return entry or rip
    if not vcpu.cr0 & CR0_PG or vcpu.efer & EFER_LMA:
        return 0
    for gva in (vm.msrs.read(vcpu, IA32_SYSENTER_EIP), rip):
        if MAP32 <= gva <= MASK32:
            return gva
    return 0
