"""Accesses of sites.py's instructions to pages that are no device's: RAM, unclaimed memory, or a policy's value.

Each function takes `sites`, the address of the words that all sites of a guest share. The page is HEAD_PAGE's.
"""

import micropython
from micropython import const

from vmm.vtx.frame import GPA

# Words at `sites`, before the sites themselves: host address of the RAM (two), its size, and
HEADER = const(10)  # words in all
HEAD_PAGE = const(3)  # number of the operand's page, in a handler for any page
HEAD_OPEN = const(4)  # pages from gpa 0 on that the monitor may access for the guest
HEAD_VALUE = const(5)  # learn()'s immediate operand
HEAD_PLACE = const(6)  # learn()'s SITE_OPERAND
HEAD_ANSWER = const(8)  # two words: the value that answer() was given


@micropython.viper
def ones(sites: int, miss, offset: int, size: int) -> int:
    """A read of an unclaimed page: all ones, counted by miss(gpa of the page)."""
    miss(int(ptr32(sites)[HEAD_PAGE]) << 12)
    return -1 if size == 8 else 0xFFFFFFFF


@micropython.viper
def dropped(sites: int, miss, offset: int, size: int, value):
    """A write to an unclaimed page: no effect, counted by miss(gpa of the page)."""
    miss(int(ptr32(sites)[HEAD_PAGE]) << 12)


@micropython.viper
def peek(sites: int, offset: int, size: int) -> uint:
    """A read of RAM."""
    h = ptr32(sites)
    at = (int(h[0]) | int(h[1]) << 32) + (int(h[HEAD_PAGE]) << 12) + offset
    if size == 4:
        return uint(ptr32(at)[0])
    if size == 1:
        return uint(ptr8(at)[0])
    if size == 2:
        return uint(ptr16(at)[0])
    w = ptr32(at)
    return uint(w[0]) | uint(w[1]) << 32


@micropython.viper
def poke(sites: int, offset: int, size: int, value):
    """A write to RAM."""
    h = ptr32(sites)
    at = (int(h[0]) | int(h[1]) << 32) + (int(h[HEAD_PAGE]) << 12) + offset
    if size == 1:
        ptr8(at)[0] = int(value)
    elif size == 2:
        ptr16(at)[0] = int(value)
    else:
        wide = uint(value)
        w = ptr32(at)
        w[0] = int(wide & uint(0xFFFFFFFF))
        if size == 8:
            w[1] = int(wide >> uint(32))


@micropython.viper
def answer(sites: int, access, vcpu, numbers: int, handler) -> int:
    """Event.quick of MEMORY. access: sites.py's _access() with answered() and replace() as the page's device."""
    n = ptr32(numbers)
    if n[0] != 1:
        return -1
    h = ptr32(sites)
    h[HEAD_ANSWER] = n[2]
    h[HEAD_ANSWER + 1] = n[3]
    h[HEAD_PAGE] = ptr32(vcpu)[GPA] >> 12
    return int(access(vcpu))


@micropython.viper
def answered(sites: int, offset: int, size: int) -> uint:
    """A read that gets the policy's value."""
    h = ptr32(sites)
    if size == 8:
        return uint(h[HEAD_ANSWER]) | uint(h[HEAD_ANSWER + 1]) << 32
    return uint(h[HEAD_ANSWER])


@micropython.viper
def replace(sites: int, store, offset: int, size: int, value):
    """A write of the policy's value instead of the guest's: to RAM, or by store(offset, size, value)."""
    h = ptr32(sites)
    answer = uint(h[HEAD_ANSWER])
    if size == 8:
        answer |= uint(h[HEAD_ANSWER + 1]) << 32
    else:
        answer &= uint((1 << (size << 3)) - 1)
    if int(h[HEAD_PAGE]) < int(h[HEAD_OPEN]):
        poke(sites, offset, size, answer)
    else:
        store(offset, size, answer)
