"""Moves a block through a data port by a bounce buffer, for requests whose buffers are not whole dwords."""

import cpu
import uctypes

from vmm.host.pio import BLOCK, MOVED, PART, READS, SECTORS


def scatter(io, port, state, parts):
    """Move the next block, as run() of pio.py does. io, port: of the channel; state, parts: of the command."""
    count = min(state[SECTORS], state[BLOCK])
    state[SECTORS] -= count
    left = count << 9
    between = bytearray(left)
    at = uctypes.addressof(between)
    if state[READS]:
        io.insl(port, at, left >> 2)
    while left:
        part = 3 * state[PART]
        hpa = (parts[part] | parts[part + 1] << 32) + state[MOVED]
        size = min(parts[part + 2] - state[MOVED], left)
        if state[READS]:
            cpu.copy(hpa, at, size)
        else:
            cpu.copy(at, hpa, size)
        at += size
        left -= size
        state[MOVED] += size
        if state[MOVED] == parts[part + 2]:
            state[PART] += 1
            state[MOVED] = 0
    if not state[READS]:
        io.outsl(port, uctypes.addressof(between), count << 7)
