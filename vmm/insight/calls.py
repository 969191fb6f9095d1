"""System calls of a guest by number and by name, for filters: Linux's names come from the guest's own tables."""

from micropython import const

_MOST = const(1024)  # numbers that a list may name


def numbers(vm, which):
    """The sorted numbers of a number, a name, or a list of them. ValueError where a name is not known."""
    several = which if isinstance(which, (list, tuple)) else (which,)
    found = set()
    for one in several:
        number = _number(vm, one) if isinstance(one, str) else one
        if len(several) > 1 and number >= _MOST:
            raise ValueError("number=%r: in a list, numbers are below %d" % (one, _MOST))
        found.add(number)
    return sorted(found)


def _number(vm, name):
    from vmm.insight.linux import calls

    return calls.number(vm.kernel, name)
