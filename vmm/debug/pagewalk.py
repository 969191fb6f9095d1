"""A walk through a guest's page tables with every level decoded, and the reason why an access faults.

    >>> vms['linux'].walk("linux_banner", access="w")

The walk goes on where rights forbid the access: each level is shown, and the first reason in the order of the tables
is given. vmm/memory/paging.py translates for the emulator; a test compares the two. Source: SDM Vol. 3A,
"Paging", "Determination of Access Rights", "Page-Fault Exceptions", "Protection Keys"; Vol. 3C, "EPT Violations".
"""

from micropython import const

from vmm.memory.ept import R, W, X
from vmm.memory.paging import ADDRESS, FETCH, PS, RSVD, RW, US, USER, WRITE, XD, P
from vmm.vtx.x86 import (
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PKE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    MASK64,
    RFLAGS_AC,
)

_G = const(1 << 8)
_PK_ERROR = const(1 << 5)  # of the error code
_PK_AT = const(59)

_FLAGS = ((0, "P"), (1, "RW"), (2, "US"), (3, "PWT"), (4, "PCD"), (5, "A"))
_LEVELS = {12: "PTE", 21: "PDE", 30: "PDPTE", 39: "PML4E", 48: "PML5E"}
_SIZES = {12: "4 KiB", 21: "2 MiB", 22: "4 MiB", 30: "1 GiB"}
ACCESSES = {"r": 0, "w": WRITE, "x": FETCH}
_WORDS = {0: "read", WRITE: "write", FETCH: "fetch"}


class Mode:
    """The state that a walk depends on: control registers, EFER, PKRU, RFLAGS.AC, and facts of CPUID."""

    def __init__(self, cr0, cr3, cr4, efer, rflags=0, pkru=0, pdptes=None, maxphyaddr=46, page_1g=True):
        self.cr0 = cr0
        self.cr3 = cr3
        self.cr4 = cr4
        self.efer = efer
        self.ac = bool(rflags & RFLAGS_AC)
        self.pkru = pkru
        self.pdptes = pdptes
        self.maxphyaddr = maxphyaddr
        self.page_1g = page_1g
        long = efer & EFER_LMA
        self.paging = bool(cr0 & CR0_PG)
        self.wide = bool(cr4 & CR4_PAE)  # 8-byte entries
        if not self.paging:
            self.name = "no paging"
        elif not self.wide:
            self.name = "32-bit paging"
        elif not long:
            self.name = "PAE paging"
        else:
            self.name = "5-level paging" if cr4 & CR4_LA57 else "4-level paging"
        self.top = 48 if cr4 & CR4_LA57 else 39
        if not long:
            self.top = 30 if self.wide else 22
        self.long = bool(long)
        self.no_execute = bool(self.wide and efer & EFER_NXE)


def mode_of(vcpu, cr3=None):
    """The Mode of a vCPU; cr3: another task's."""
    cr0, cr4, efer = vcpu.cr0, vcpu.cr4, vcpu.efer
    pae = cr0 & CR0_PG and cr4 & CR4_PAE and not efer & EFER_LMA
    keys = cr4 & CR4_PKE and efer & EFER_LMA and cr0 & CR0_PG
    cpuid = vcpu.vm.cpuid
    return Mode(
        cr0, vcpu.cr3 if cr3 is None else cr3, cr4, efer, vcpu.rflags, vcpu.pkru if keys else 0,
        vcpu.pdptes() if pae and cr3 is None else None, cpuid.leaf(0x80000008, 0)[0] & 0xFF,
        bool(cpuid.leaf(0x80000001, 0)[3] >> 26 & 1),
    )  # fmt: skip


class PageWalk:
    """The result. gpa: where it leads, or None; why: the reason why the access faults, or ""; error: the error code of
    that #PF, or None; steps: ((level, gpa of the entry, entry, what it says), ...); behind: lines on the gpa."""

    def __init__(self, gva, access, cpl, mode):
        self.gva = gva
        self.access = access
        self.cpl = cpl
        self.mode = mode
        self.gpa = None
        self.size = ""
        self.why = ""
        self.error = None
        self.steps = []
        self.behind = []

    def refuse(self, why, error=None):
        """Keep a reason, if it is the first one."""
        if not self.why:
            self.why, self.error = why, error

    def __repr__(self):
        kind = _WORDS[self.access & (WRITE | FETCH)]
        lines = ["%s of gva %#x at CPL %d, %s" % (kind, self.gva, self.cpl, self.mode.name)]
        for level, gpa, entry, text in self.steps:
            place = " " * 14 if gpa is None else "at %#-11x" % gpa
            lines.append("%-5s %s %#018x  %s" % (level, place, entry, text))
        if self.why:
            code = "" if self.error is None else "#PF(%#x): " % self.error
            lines.append("faults: %s%s" % (code, self.why))
        if self.gpa is not None:
            lines.append("gpa %#x%s" % (self.gpa, ", in a page of %s" % self.size if self.size else ""))
            lines += self.behind
        return "\n".join(lines)


def walk(memory, mode, gva, access=0, cpl=0):
    """Return the PageWalk of gva. memory: read_u32(), read_u64(); access: WRITE or FETCH of vmm/memory/paging.py, or 0
    for a read, with USER where the CPU itself accesses as at CPL 3."""
    if cpl == 3:
        access |= USER
    gva &= MASK64
    done = PageWalk(gva, access, cpl, mode)
    if not mode.long:
        done.gva = gva = gva & 0xFFFFFFFF
    if not mode.paging:
        done.gpa = gva
        return done
    if mode.long:
        upper = gva >> (mode.top + 8)
        if upper and upper != (1 << (56 - mode.top)) - 1:
            done.refuse("the address is not canonical: #GP(0), or #SS(0) for a stack access")
            return done
    try:
        _levels(memory, mode, gva, done)
    except ValueError:
        done.refuse("a page table lies outside the guest's memory")
    return done


def _levels(memory, mode, gva, done):
    shift = mode.top
    mask = 511 if mode.wide else 1023
    size = 8 if mode.wide else 4
    if mode.long:
        table = mode.cr3 & ADDRESS
    else:
        table = mode.cr3 & (0xFFFFFFE0 if mode.wide else 0xFFFFF000)
    rights = RW | US
    no_execute = None  # the level that forbids execution
    refused = {}  # right: the level without it
    while True:
        name = _LEVELS.get(shift, "PDE")
        if shift == 30 and not mode.long:
            name, gpa = "PDPTE", None if mode.pdptes else table + (gva >> 30) * 8
            entry = mode.pdptes[gva >> 30] if mode.pdptes else memory.read_u64(gpa)
        else:
            gpa = table + (gva >> shift & mask) * size
            entry = memory.read_u64(gpa) if size == 8 else memory.read_u32(gpa)
        pointer = shift == 30 and not mode.long  # has neither rights nor flags
        leaf = shift == 12 or (bool(entry & PS) and not pointer and (mode.wide or mode.cr4 & CR4_PSE))
        done.steps.append((name, gpa, entry, _text(entry, shift, leaf, mode, pointer)))
        if not entry & P:
            done.refuse("the %s is not present (P = 0)" % name, _error(done.access, 0, mode))
            return
        bad = _reserved(entry, shift, leaf, mode)
        if bad:
            done.refuse("the %s has reserved bits set: %s" % (name, bad), _error(done.access, P | RSVD, mode))
            return
        if not pointer:
            for right, word in ((RW, "RW"), (US, "US")):
                if rights & ~entry & right:
                    refused[word] = name
            rights &= entry
            if mode.no_execute and entry >> 63 and not no_execute:
                no_execute = name
        if leaf:
            break
        table = entry & (ADDRESS if mode.wide else 0xFFFFF000)
        shift = 12 if shift == 22 else shift - 9
    offset = (1 << shift) - 1
    if mode.wide:
        base = entry & ADDRESS & ~offset
    elif shift == 22:
        base = (entry >> 13 & 0xFF) << 32 | entry & 0xFFC00000
    else:
        base = entry & 0xFFFFF000
    done.gpa = base | gva & offset
    done.size = _SIZES[shift]
    _rights(done, mode, rights, refused, no_execute, entry)


def _rights(done, mode, rights, refused, no_execute, entry):
    """Whether the rights of all levels together allow the access."""
    access = done.access
    user_page = rights & US
    fault = _error(access, P, mode)
    if mode.long and mode.cr4 & CR4_PKE and user_page and not access & FETCH:
        key = entry >> _PK_AT & 15
        bits = mode.pkru >> 2 * key
        if bits & 1 or (bits & 2 and access & WRITE and (access & USER or mode.cr0 & CR0_WP)):
            what = "access" if bits & 1 else "writes"
            done.refuse("PKRU forbids %s to pages of protection key %d" % (what, key), fault | _PK_ERROR)
    if access & FETCH and no_execute:
        done.refuse("the %s forbids execution (XD = 1)" % no_execute, fault)
    if access & USER:
        if not user_page:
            done.refuse("the page is the supervisor's: the %s has US = 0" % refused["US"], fault)
        if access & WRITE and not rights & RW:
            done.refuse("the page is read-only: the %s has RW = 0" % refused["RW"], fault)
        return
    if access & WRITE and not rights & RW and mode.cr0 & CR0_WP:
        done.refuse("the page is read-only: the %s has RW = 0, and CR0.WP = 1" % refused["RW"], fault)
    if user_page and access & FETCH and mode.cr4 & CR4_SMEP:
        done.refuse("the page is the user's, and CR4.SMEP = 1", fault)
    if user_page and not access & FETCH and mode.cr4 & CR4_SMAP and not mode.ac:
        done.refuse("the page is the user's, CR4.SMAP = 1 and RFLAGS.AC = 0", fault)


def _error(access, bits, mode):
    """The error code of the #PF."""
    if not (mode.no_execute or mode.cr4 & CR4_SMEP):
        access &= ~FETCH
    return access & (WRITE | USER | FETCH) | bits


def _reserved(entry, shift, leaf, mode):
    """Which bits of a present entry must be 0 and are not; "" for none."""
    bad = 0
    if mode.wide:
        bad = entry & ((1 << (52 if mode.long else 63)) - 1) & ~((1 << mode.maxphyaddr) - 1)
        if entry >> 63 and not mode.no_execute:
            bad |= XD
        if shift == 30 and not mode.long:
            return _bits(bad)  # bits 1, 2, 5 to 8 are checked by MOV to CR3 alone
        if entry & PS and (shift > 30 or (shift == 30 and not mode.page_1g)):
            bad |= PS
        elif leaf and shift > 12:
            bad |= entry & ((1 << shift) - 1) & 0xFFFFE000
    elif leaf and shift == 22:
        width = max(min(mode.maxphyaddr, 40) - 32, 0)
        bad = entry & (1 << 21) | entry & (0xFF << 13) & ~(((1 << width) - 1) << 13)
    return _bits(bad)


def _bits(value):
    return ", ".join(["bit %d" % i for i in range(64) if value >> i & 1])


def _text(entry, shift, leaf, mode, pointer):
    """The flags of an entry that are set, and where it points to."""
    if not entry & P:
        return "not present" if entry else "not present, all zero"
    words = [name for bit, name in _FLAGS if entry >> bit & 1]
    if leaf and not pointer:
        if entry & 1 << 6:
            words.append("D")
        if shift > 12:
            words.append("PS")
        if entry & _G:
            words.append("G")
        key = entry >> _PK_AT & 15
        if mode.long and mode.cr4 & CR4_PKE and key:
            words.append("PK=%d" % key)
    if mode.no_execute and entry >> 63 and not pointer:
        words.append("XD")
    return " ".join(words)


def behind(vm, gpa):
    """Lines on a gpa: the page in EPT, its rights and what watches it, or the device."""
    found = vm.mmio_bus.find(gpa)
    if found is not None:
        return ["device memory: %s" % type(found[1]).__name__]
    entry, size = vm.ept.walk(gpa)
    if not size:
        return ["no RAM and no device there"]
    hpa = entry & ADDRESS & ~(size - 1) | gpa & (size - 1)
    own, now = vm.ept.own(gpa), entry & (R | W | X)
    text = "EPT: hpa %#x, page of %s, %s" % (hpa, _SIZES[len(bin(size)) - 3], _letters(now))
    if now != own:
        text += " of %s" % _letters(own)
    lines = [text]
    for watcher, taken in vm.rights.watchers(gpa & ADDRESS):
        lines.append("watched by %r, which takes %s away" % (watcher, _letters(taken)))
    return lines


def _letters(rights):
    return "".join([letter if rights & bit else "-" for letter, bit in (("r", R), ("w", W), ("x", X))])
