"""System calls of a guest by number and by name, for filters: Linux's names come from the guest's own tables."""

from array import array

from micropython import const

MOST = const(1024)  # numbers of system calls that a set may have


def numbers(vm, which, old=False):
    """The sorted numbers of a number, a name, or a list of them. old: of 32-bit programs.

    ValueError where a name is not known.
    """
    several = which if isinstance(which, (list, tuple)) else (which,)
    found = set()
    for one in several:
        number = _number(vm, one, old) if isinstance(one, str) else one
        if len(several) > 1 and number >= MOST:
            raise ValueError("number=%r: in a list, numbers are below %d" % (one, MOST))
        found.add(number)
    return sorted(found)


def _number(vm, name, old):
    from vmm.insight.linux import calls

    return calls.number(vm.kernel, name, old)


def bitmap(numbers):
    """A bit for each number below MOST, as 32-bit words. ValueError for a higher one."""
    words = array("I", bytes(MOST // 8))
    for number in numbers:
        if number >= MOST:
            raise ValueError("number=%r: numbers are below %d" % (number, MOST))
        words[number >> 5] |= 1 << (number & 31)
    return words
