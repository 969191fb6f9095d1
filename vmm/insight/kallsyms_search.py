"""Finds kallsyms in a Linux whose VMCOREINFO does not say where it lies: before Linux 6.0, or early in its boot.

The tables are found by what they contain, from `token_index` on, whose form is rare in other data: 256 offsets that
begin with 0 and ascend by the length of a token. token_table ends before it, markers before that (or before `seqs`,
which is then as long as the number of markers says), names before these, and offsets are the first or the last of all.
Limits: kernels of more than 256 symbols, Linux 4.6 on, whose image lies at its own addresses: that is known from the
guest's SYSCALL or SYSENTER entry or its RIP. A 32-bit kernel's tables are aligned to 4 bytes, others to 8 or 4. Source:
Linux, scripts/kallsyms.c; vmm/insight/kallsyms.py has the tables' forms.
"""

import struct

import cpu
import micropython
from micropython import const

from vmm.insight.kallsyms import Kallsyms, align_up
from vmm.insight.kallsyms_names import skip
from vmm.insight.vmcoreinfo import MAP32, MAP64
from vmm.memory import look
from vmm.vtx.x86 import MASK32, MASK64

_REACH = const(64 << 20)  # bytes behind the entry in which the tables are
_PORTION = const(1 << 16)  # bytes scanned by one call
_LOOK = const(256)  # words that are scanned between two looks for guests above
_TOKEN = const(63)  # bytes of a token with its NUL, at most
_INDEX = const(512)  # bytes of token_index
_GROUP = const(256)  # symbols of a marker
_LEAST = const(_GROUP * 2)  # bytes of their names
_MOST = const(_GROUP * 256)
_SYMBOLS = const(1 << 20)
_SEQS = const(3 * _SYMBOLS >> 2)  # words of seqs at most
_WINDOW = const(1 << 30)  # bytes of address space in which kernels are
_BANNER = b"Linux version "
_RELEASE = const(65)  # bytes of it, at most


@micropython.viper
def _ascending(words: ptr32, halves: ptr16, at: int, end: int) -> int:
    """The offset, from `at` to before `end`, of the first 256 numbers of 16 bits that begin with 0 and ascend as
    token_index does; -1: there are none. The same memory as words and as halves."""
    at >>= 2
    end >>= 2
    look = cpu.look
    while at < end:
        look()
        stop = at + _LOOK if at + _LOOK < end else end
        while at < stop:
            word = int(words[at])
            if word & 0xFFC0FFFF == 0 and word != 0:  # 0, then 1 to 63
                i = 1
                before = 0
                while i < 256:
                    value = int(halves[2 * at + i])
                    step = value - before
                    if step < 1 or step > _TOKEN:
                        break
                    before = value
                    i += 1
                if i == 256:
                    return at << 2
            at += 1
    return -1


@micropython.viper
def _behind_markers(words: ptr32, table: int, least: int) -> int:
    """The word behind the markers: word number `table` itself, but for padding, or as far before it as `seqs` is long.
    -1: there are none."""
    end = table
    look = cpu.look
    while end > least:
        look()
        at = end - 1
        value = int(words[at])
        count = 1
        while value != 0 and at > least:
            at -= 1
            step = value - int(words[at])
            if step < _LEAST or step > _MOST:
                break
            value -= step
            count += 1
        if value == 0 and count > 1:
            gap = (table - end) << 2
            if gap < 8 or (3 * _GROUP * (count - 1) < gap and gap < 3 * _GROUP * count + 16):
                return end
        end -= 1
    return -1


class _Places:
    """A kernel's image that says where its tables are. image: has view(), near(), release, bits, mask."""

    def __init__(self, image, places):
        self._image = image
        self.bits = image.bits
        self.mask = image.mask
        self.view = image.view
        self.near = image.near
        self._places = places

    @property
    def release(self):
        return self._image.release

    def has(self, name):
        return name in self._places

    def symbol(self, name):
        return self._places[name]


class Mapped:
    """The image of a kernel, by one of its addresses and the page tables that are live."""

    release = "of an unknown release"

    def __init__(self, memory, entry, gpa):
        self.bits = 64 if entry >= MAP64 else 32
        self.mask = MASK64 if entry >= MAP64 else MASK32
        self._memory = memory
        self._shift = entry - gpa

    def view(self, gva, size, least=None):
        """As vmcoreinfo.Image.view()."""
        gpa = gva - self._shift
        for base, length, _ in self._memory.segments:
            if base <= gpa < base + length:
                room = min(size, base + length - gpa)
                if room >= (size if least is None else least):
                    return self._memory.view(gpa, room)
        raise ValueError("the kernel's tables say %#x, which is outside its memory" % gva)

    def near(self, gva):
        """As vmcoreinfo.Image.near()."""
        return _is_near(gva, self.bits)


def is_entry(gva):
    """Whether a kernel may have its text there."""
    return gva >= MAP64 or MAP32 <= gva <= MASK32


def of(vm, entry):
    """The Kallsyms of the kernel that a VM runs, by `entry`, a gva in its text. ValueError."""
    gpa = look.holding(vm.vcpus[0], entry).translate(entry)
    image = Mapped(vm.memory, entry, gpa)
    known = find(image, entry)
    image.release = release(known, image) or image.release
    return known


def find(image, entry):
    """The Kallsyms of a kernel. image: vmcoreinfo.Image, or Mapped; entry: a gva in its text. ValueError."""
    start = entry & ~7
    data = image.view(start, _REACH, 1)
    at = 0
    while True:
        at = _next(data, at)
        if at < 0:
            raise ValueError("no symbols are found in the memory of a Linux %s" % image.release)
        table = _token_table(data, at)
        if table >= 0:
            for places in _places(data, start, table, at, image.bits):
                try:
                    found = Kallsyms(_Places(image, places))
                    if _fits(found, entry):
                        return found
                except ValueError:
                    pass  # other data that resembles the tables
        at += 4


def _next(data, at):
    end = len(data) - _INDEX
    while at < end:
        stop = min(at + _PORTION, end)
        found = _ascending(data, data, at, stop)
        if found >= 0:
            return found
        at = stop
    return -1


def _token_table(data, index):
    """The offset of the token_table that belongs to the token_index at offset `index`; -1: there is none."""
    end = index - 1
    while end > index - 9 and not data[end]:
        end -= 1  # the last NUL, and padding
    start = end
    while end - start < _TOKEN and start > 0 and data[start - 1]:
        start -= 1
    offsets = struct.unpack_from("<256H", data, index)
    table = start - offsets[255]
    if end == index - 1 or not data[end] or table < 0 or table & 3:
        return -1
    for offset in offsets[1:]:
        if data[table + offset - 1]:
            return -1
    for digit in b"09":
        at = table + offsets[digit]
        if data[at] != digit or data[at + 1]:
            return -1
    return table


def _places(data, start, table, index, bits):
    """Yield {name: gva} for each layout that fits the tables before and behind these. start: gva of data."""
    width = bits >> 3
    words = table >> 2
    behind = _behind_markers(data, words, max(0, words - _SEQS))
    if behind < 0:
        return
    last = struct.unpack_from("<I", data, 4 * behind - 4)[0]
    first = 4 * behind - 4
    while struct.unpack_from("<I", data, first)[0]:
        first -= 4
    groups = behind - (first >> 2)
    for names, number, count in _names(data, first, last, groups):
        found = {
            "kallsyms_names": start + names,
            "kallsyms_num_syms": start + number,
            "kallsyms_token_table": start + table,
            "kallsyms_token_index": start + index,
        }
        base = number - width  # before Linux 6.4
        offsets = base - align_up(4 * count, width)
        if offsets >= 0 and _in_window(data, base, bits):
            yield _with(found, start + offsets, start + base)
        offsets = index + _INDEX
        base = align_up(offsets + 4 * count, width)
        if base + width <= len(data):
            yield _with(found, start + offsets, start + base if _in_window(data, base, bits) else None)


def _with(places, offsets, base):
    places = dict(places, kallsyms_offsets=offsets)
    if base is not None:
        places["kallsyms_relative_base"] = base
    return places


def _in_window(data, at, bits):
    return _is_near(struct.unpack_from("<Q" if bits == 64 else "<I", data, at)[0], bits)


def _is_near(gva, bits):
    return 0 <= gva - (MAP64 if bits == 64 else MAP32) < _WINDOW


def _names(data, first, last, groups):
    """Yield (offset of names, of num_syms, the number of symbols). first: offset of the markers, last: the last one."""
    second = struct.unpack_from("<I", data, first + 4)[0]
    for at in range((first - last) & ~3, max(8, first - last - _MOST), -4):
        for before in (8, 4):
            count = struct.unpack_from("<I", data, at - before)[0]
            if (count + _GROUP - 1) // _GROUP == groups:
                names = data[at:first]
                end = skip(names, last, len(names), count - _GROUP * (groups - 1))
                if end > len(names) - 8 and skip(names, 0, len(names), _GROUP) == second:
                    yield at, at - before, count


def _fits(known, entry):
    """Whether these are symbols of the kernel that has `entry`: it lies between its ends.

    Without CONFIG_KALLSYMS_ALL there are symbols of code alone.
    """
    first, last = known.lookup("_stext"), known.lookup("_end") or known.lookup("_einittext") or known.lookup("_etext")
    return len(first) == 1 and len(last) == 1 and first[0] & ~0x1FFFFF <= entry < last[0]


def release(known, image):
    """The kernel's release, or None: without CONFIG_KALLSYMS_ALL its place is not known. known: its Kallsyms."""
    for gva in known.lookup("linux_banner")[:1]:
        text = bytes(image.view(gva, len(_BANNER) + _RELEASE))
        if text.startswith(_BANNER):
            text = text[len(_BANNER) :].split(b" ")[0].split(b"\0")[0]
            return "".join([chr(byte) if 32 < byte < 127 else "?" for byte in text])
    return None
