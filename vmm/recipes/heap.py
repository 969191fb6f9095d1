"""The heap of a Linux process, read from outside.

from vmm.recipes import heap
data = heap.dump(vms['linux'], pid)    # bytes of [heap]; at most `most`
heap.strings(data)                     # texts of 6 characters or more that are in it
"""

from micropython import const

MOST = const(0x100000)  # bytes
_PIECE = const(0x1000)


def dump(vm, pid, most=MOST):
    """The bytes of a process's [heap]; zeros where a page is not there. ValueError where it has none."""
    linux = vm.linux
    for row in linux.maps(pid):
        if row[-1] == "[heap]":
            start, end = row[0], row[1]
            break
    else:
        raise ValueError("process %d has no [heap]" % pid)
    parts = []
    for gva in range(start, min(end, start + most), _PIECE):
        try:
            parts.append(linux.read(pid, gva, _PIECE))
        except ValueError:
            parts.append(bytes(_PIECE))
    return b"".join(parts)


def strings(data, least=6):
    """The runs of at least so many printable ASCII characters, as a list of str."""
    found = []
    start = 0
    for at in range(len(data) + 1):
        if at == len(data) or not 0x20 <= data[at] < 0x7F:
            if at - start >= least:
                found.append(str(data[start:at], "ascii"))
            start = at + 1
    return found
