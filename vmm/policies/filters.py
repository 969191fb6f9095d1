"""The events that policies can answer, and the filters that narrow them.

An event has one filter that is the key of its exits (leaf, MSR, port, ...): policies are
found by it. The others are looked at one by one.
"""

from micropython import const

from vmm.memory.ept import R, W, X
from vmm.vtx import frame, reasons
from vmm.vtx.x86 import PAGE

CPUID = "cpuid"
RDMSR = "rdmsr"
WRMSR = "wrmsr"
IO = "io"
VMCALL = "vmcall"
MEMORY = "memory"
EXCEPTION = "exception"

ANY = const(-1)  # key of a policy that did not name one
_RIGHTS = {"r": R, "w": W, "x": X}
_NMI = const(2)
_MC = const(18)

_NUMBERS = {  # filter: lowest and highest value
    "leaf": (0, 0xFFFFFFFF),
    "subleaf": (0, 0xFFFFFFFF),
    "msr": (0, 0xFFFFFFFF),
    "number": (0, 0xFFFFFFFF),
    "port": (0, 0xFFFF),
    "vector": (0, 31),
    "gpa": (0, (1 << 52) - 1),
    "length": (1, 1 << 52),
}


class Event:
    """One kind of exit.

    reason; word, shift and mask: where the frame has the key; key: the filter that is the
    key; more: the other filters; needed: whether the key must be named.
    """

    def __init__(self, reason, word, shift, mask, key, more=(), needed=False):
        self.reason = reason
        self.word = word
        self.shift = shift
        self.mask = mask
        self.key = key
        self.more = more
        self.needed = needed


EVENTS = {
    CPUID: Event(reasons.CPUID, frame.RAX, 0, 0xFFFFFFFF, "leaf", ("subleaf",)),
    RDMSR: Event(reasons.RDMSR, frame.RCX, 0, 0xFFFFFFFF, "msr", (), True),
    WRMSR: Event(reasons.WRMSR, frame.RCX, 0, 0xFFFFFFFF, "msr", (), True),
    IO: Event(reasons.IO_INSTRUCTION, frame.QUALIFICATION, 16, 0xFFFF, "port", ("write", "size")),
    VMCALL: Event(reasons.VMCALL, frame.RAX, 0, 0xFFFFFFFF, "number"),
    MEMORY: Event(reasons.EPT_VIOLATION, frame.GPA, 12, 0xFFFFFFFFFF, "gpa", ("length", "access"), True),
    EXCEPTION: Event(reasons.EXCEPTION_OR_NMI, frame.INTR_INFO, 0, 0xFF, "vector"),
}


def check(event, filters):
    """Return the keys (a tuple) of a policy with these filters. ValueError in words for the user."""
    if event not in EVENTS:
        raise ValueError("event %r is unknown; there are %s" % (event, ", ".join(sorted(EVENTS))))
    known = EVENTS[event]
    for name in filters:
        if name != known.key and name not in known.more:
            raise ValueError("%s has no filter %s=; it has %s" % (event, name, ", ".join((known.key,) + known.more)))
        _check(name, filters[name])
    if known.key not in filters:
        if known.needed:
            raise ValueError("a policy on %s names its %s=" % (event, known.key))
        return (ANY,)
    if event == EXCEPTION and filters["vector"] in (_NMI, _MC):
        raise ValueError("vector %d is the host's: no policy sees it" % filters["vector"])
    if event == MEMORY:
        gpa = filters["gpa"]
        return tuple(range(gpa >> 12, (gpa + filters.get("length", PAGE) - 1 >> 12) + 1))
    return (filters[known.key],)


def _check(name, value):
    if name == "access":
        if not isinstance(value, str) or not value:
            raise ValueError("access=%r: some of the letters r, w and x" % (value,))
        rights_of(value)
    elif name == "write":
        if value not in (True, False):
            raise ValueError("write=%r: True or False" % (value,))
    elif name == "size":
        if value not in (1, 2, 4):
            raise ValueError("size=%r: 1, 2 or 4" % (value,))
    else:
        low, high = _NUMBERS[name]
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError("%s=%r: a number from %d to %#x" % (name, value, low, high))


def accepts(event, filters, vcpu):
    """Whether an exit of this event passes the filters beyond the key."""
    if event == EXCEPTION:
        info = vcpu.intr_info
        return info >> 8 & 7 != _NMI and info & 0xFF != _MC
    for name in filters:
        wanted = filters[name]
        if name == "subleaf":
            if vcpu.rcx & 0xFFFFFFFF != wanted:
                return False
        elif name == "write":
            if bool(vcpu.qualification & 8) == bool(wanted):
                return False
        elif name == "size":
            if (vcpu.qualification & 7) + 1 != wanted:
                return False
        elif name == "access":
            if not vcpu.qualification & rights_of(wanted):
                return False
        elif name == "gpa" and not wanted <= vcpu.gpa < wanted + filters.get("length", PAGE):
            return False
    return True


def rights_of(access):
    """'rw' -> R | W."""
    bits = 0
    for letter in access:
        if letter not in _RIGHTS:
            raise ValueError("access=%r: some of the letters r, w and x" % access)
        bits |= _RIGHTS[letter]
    return bits
