"""Trees of a Linux kernel: rbtrees, xarrays (IDRs, radix trees), maple trees.

Entries are yielded in ascending order. What the guest's memory says is bounded: a tree deeper than any real one, or
with more than 65,536 entries, ends with ValueError. Source: Linux, include/linux/rbtree.h, xarray.h, maple_tree.h.
"""

from micropython import const

from vmm.insight import objects
from vmm.vtx.x86 import MASK64

_MOST = const(65536)  # entries
_NODES = const(1 << 17)  # nodes of a tree, which may have fewer entries
_DEEPEST_RB = const(128)  # of 2^64 nodes
_DEEPEST = const(24)
_NODE = const(4096)  # an internal entry above it is a node
_MAPLE_MASK = const(0xFF)
_DENSE, _LEAF, _RANGE, _ARANGE = const(0), const(1), const(2), const(3)


def _too_many(what, gva):
    return ValueError("the %s at %#x has more than %d entries" % (what, gva, _MOST))


def rbtree(types, space, root, type, member):
    """Yield the structs in an rbtree. root: gva of its struct rb_root; member: their struct rb_node."""
    if isinstance(type, str):
        type = types.type(type)
    offset = type.offset(member)
    node = types.type("struct rb_node")
    left, right = node.offset("rb_left"), node.offset("rb_right")
    number = space.number
    above = []
    gva = number(root, 8)
    count = 0
    while gva or above:
        while gva:
            above.append(gva)
            if len(above) > _DEEPEST_RB:
                raise ValueError("the rbtree at %#x is deeper than %d: it loops" % (root, _DEEPEST_RB))
            gva = number(gva + left, 8)
        gva = above.pop()
        following = number(gva + right, 8)
        count += 1
        if count > _MOST:
            raise _too_many("rbtree", root)
        yield objects.Object(type, space, gva - offset & MASK64)
        gva = following


class XArray:
    """The entries of a struct xarray, as numbers: pointers, or values times 2 plus 1."""

    def __init__(self, types, space, gva):
        self._space = space
        self._gva = gva
        self._head = space.number(gva + types.type("struct xarray").offset("xa_head"), 8)
        node = types.type("struct xa_node")
        self._shift_at = node.offset("shift")
        self._slots_at = node.offset("slots")
        self._count = node.member("slots").type.plain.length or 64

    def _slot(self, node, index):
        """The entry of a node's slot; for a sibling entry that of the slot which it names."""
        entry = self._space.number(node + self._slots_at + 8 * index, 8)
        if entry & 3 == 2 and entry >> 2 < self._count:
            entry = self._space.number(node + self._slots_at + 8 * (entry >> 2), 8)
        return entry

    def load(self, index):
        """The entry at an index; 0: none."""
        entry = self._head
        above = 256
        first = True
        while entry & 3 == 2 and entry > _NODE:
            node = entry - 2
            shift = self._space.number(node + self._shift_at, 1)
            if shift >= above or shift > 60:
                raise ValueError("the xarray at %#x loops" % self._gva)
            if first and index >> shift >= self._count:
                return 0
            first = False
            above = shift
            entry = self._slot(node, index >> shift & self._count - 1)
        if first and index:
            return 0
        return 0 if entry & 3 == 2 else entry

    def items(self):
        """Yield (index, entry)."""
        if not self._head & 3 == 2:
            if self._head:
                yield 0, self._head
            return
        left = [_MOST, _NODES]
        for pair in self._below(self._head, 0, 256, left):
            yield pair

    def _below(self, entry, base, above, left):
        node = entry - 2
        shift = self._space.number(node + self._shift_at, 1)
        left[1] -= 1
        if shift >= above or shift > 60 or left[1] < 0:
            raise ValueError("the xarray at %#x loops" % self._gva)
        for i in range(self._count):
            entry = self._space.number(node + self._slots_at + 8 * i, 8)
            if entry & 3 == 2 and entry > _NODE and shift:
                for pair in self._below(entry, base + (i << shift), shift, left):
                    yield pair
            elif entry and not entry & 3 == 2:
                left[0] -= 1
                if left[0] < 0:
                    raise _too_many("xarray", self._gva)
                yield base + (i << shift), entry


def xarray(types, space, gva, type=None):
    """Yield (index, entry) of a struct xarray (radix_tree_root, idr.idr_rt). Entries are structs of a type, integers
    where they are values; without a type they are the addresses."""
    if isinstance(type, str):
        type = types.type(type)
    for index, entry in XArray(types, space, gva).items():
        if entry & 1:
            yield index, entry >> 1
        else:
            yield index, entry if type is None else objects.Object(type, space, entry)


def maple(types, space, gva, type=None):
    """Yield (first, last, entry) of the ranges of a struct maple_tree that have one. Entries as with xarray()."""
    if isinstance(type, str):
        type = types.type(type)
    root = space.number(gva + types.type("struct maple_tree").offset("ma_root"), 8)
    layouts = {}
    for kind, name in ((_RANGE, "struct maple_range_64"), (_ARANGE, "struct maple_arange_64")):
        node = types.type(name)
        layouts[kind] = node.offset("pivot"), node.offset("slot"), node.member("slot").type.plain.length
    layouts[_LEAF] = layouts[_RANGE]
    left = [_MOST, _NODES]
    for first, last, entry in _maple(space, layouts, gva, root, 0, MASK64, 0, left):
        left[0] -= 1
        if left[0] < 0:
            raise _too_many("maple tree", gva)
        yield first, last, entry if type is None else objects.Object(type, space, entry)


def _maple(space, layouts, tree, entry, least, most, depth, left):
    """Yield (first, last, entry) below an entry that stands for a range.

    The root has bit 1 set where it is a node; the slots of an inner node are nodes, without that mark.
    """
    if not depth and not (entry & 3 == 2 and entry > _NODE):
        if entry and not entry & 3 == 2:
            yield least, least, entry
        return
    kind = entry >> 3 & 15
    left[1] -= 1
    if kind not in layouts or depth > _DEEPEST or left[1] < 0:
        raise ValueError("the maple tree at %#x has a node of kind %d at depth %d" % (tree, kind, depth))
    pivots, slots, count = layouts[kind]
    node = entry & ~_MAPLE_MASK
    for i in range(count):
        last = space.number(node + pivots + 8 * i, 8) if i < count - 1 else most
        if last > most or not last and i:
            last = most
        slot = space.number(node + slots + 8 * i, 8)
        if kind == _LEAF:
            if slot and not slot & 3 == 2:
                yield least, last, slot
        else:
            for found in _maple(space, layouts, tree, slot, least, last, depth + 1, left):
                yield found
        if last >= most:
            return
        least = last + 1
