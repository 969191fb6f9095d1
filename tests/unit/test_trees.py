"""vmm/insight/trees.py over trees made here; trees that loop end in one clear error."""

import random
import struct

import pytest
from btfs import Section, Space, types
from support import Memory

from vmm.insight import objects, trees

BASE = 0x10000


@pytest.fixture(scope="module")
def known():
    """(types, space, memory) with the kernel's structs of the trees."""
    made = Section()
    byte = made.integer("unsigned char", 1)
    ulong = made.integer("long unsigned int", 8)
    made.struct("rb_node", 24, [("__rb_parent_color", ulong, 0), ("rb_right", ulong, 64), ("rb_left", ulong, 128)])
    made.struct("item", 40, [("key", ulong, 0), ("node", 3, 64)])
    slots = made.array(ulong, 64)
    made.struct("xa_node", 560, [("shift", byte, 0), ("slots", slots, 384)])
    made.struct("xarray", 16, [("xa_flags", ulong, 0), ("xa_head", ulong, 64)])
    wide, narrow, tens, nines = (made.array(ulong, n) for n in (16, 15, 10, 9))
    made.struct("maple_range_64", 256, [("parent", ulong, 0), ("pivot", narrow, 64), ("slot", wide, 1024)])
    made.struct("maple_arange_64", 240, [("parent", ulong, 0), ("pivot", nines, 64), ("slot", tens, 640)])
    made.struct("maple_tree", 16, [("ma_flags", ulong, 0), ("ma_root", ulong, 64)])
    made.struct("rb_root", 8, [("rb_node", ulong, 0)])
    memory = Memory(1 << 20)
    return types(made.blob())[0], Space(memory), memory


def put(memory, gva, *words):
    memory.write(gva, struct.pack(f"<{len(words)}Q", *words))


def plant(memory, keys):
    """A binary tree of items at BASE + 64 * key; its root's address."""
    keys = sorted(keys)

    def below(low, high):
        if low == high:
            return 0
        middle = (low + high) // 2
        at = BASE + 64 * keys[middle]
        put(memory, at, keys[middle], 0, below(middle + 1, high), below(low, middle))
        return at + 8

    return below(0, len(keys))


def test_rbtrees_are_walked_in_order(known):
    types, space, memory = known
    for size in (0, 1, 2, 100):
        keys = random.Random(size).sample(range(1000), size)
        put(memory, 0x100, plant(memory, keys))
        root = objects.Object(types.type("struct rb_root"), space, 0x100)
        assert [item.key for item in root.rb_("struct item", "node")] == sorted(keys)


def test_rbtrees_that_loop_end(known):
    types, space, memory = known
    put(memory, 0x100, BASE + 8)
    put(memory, BASE, 1, 0, 0, BASE + 8)
    with pytest.raises(ValueError, match="deeper than 128"):
        list(trees.rbtree(types, space, 0x100, "struct item", "node"))
    put(memory, BASE, 1, 0, BASE + 8, 0)
    with pytest.raises(ValueError, match="more than 65536 entries"):
        list(trees.rbtree(types, space, 0x100, "struct item", "node"))


def node(memory, at, shift, slots):
    """An xa_node; its entry."""
    memory.write(at, bytes(560))
    memory.write(at, bytes([shift]))
    for i, entry in slots.items():
        put(memory, at + 48 + 8 * i, entry)
    return at + 2


def test_xarrays_have_pointers_values_siblings(known):
    types, space, memory = known
    put(memory, 0x100, 0, 0)
    array = objects.Object(types.type("struct xarray"), space, 0x100)
    assert list(array.xarray_()) == []
    put(memory, 0x100, 0, 0x5000)
    assert list(array.xarray_()) == [(0, 0x5000)]
    # slot 5 is a sibling of slot 4; slot 6 is reserved; 7 is a value
    leaf = node(memory, BASE, 0, {1: 0x5000, 4: 0x6000, 5: 4 << 2 | 2, 6: 257 << 2 | 2, 7: 42 << 1 | 1})
    put(memory, 0x100, 0, node(memory, BASE + 1024, 6, {2: leaf}))
    assert list(array.xarray_()) == [(129, 0x5000), (132, 0x6000), (135, 42)]
    items = dict(array.xarray_("struct item"))
    assert items[129].gva_ == 0x5000 and items[135] == 42
    lookup = trees.XArray(types, space, 0x100).load
    assert [lookup(i) for i in (129, 132, 133, 134, 0, 1, 1 << 20)] == [0x5000, 0x6000, 0x6000, 0, 0, 0, 0]


def test_xarrays_that_loop_end(known):
    types, space, memory = known
    put(memory, 0x100, 0, node(memory, BASE, 6, {i: BASE + 2 for i in range(64)}))
    with pytest.raises(ValueError, match="loops"):
        list(trees.xarray(types, space, 0x100))
    with pytest.raises(ValueError, match="loops"):
        trees.XArray(types, space, 0x100).load(1)
    node(memory, BASE, 200, {})
    with pytest.raises(ValueError, match="loops"):
        list(trees.xarray(types, space, 0x100))


LEAF, RANGE, ARANGE = 1, 2, 3
ROOT = 2


def maple(at, kind):
    """How an entry names a node (mt_mk_node); the root has ROOT, too."""
    return at | kind << 3 | 4


def leaf(memory, at, pivots, slots):
    memory.write(at, bytes(256))
    put(memory, at + 8, *pivots)
    put(memory, at + 128, *slots)
    return maple(at, LEAF)


def test_maple_trees_have_ranges(known):
    types, space, memory = known
    tree = objects.Object(types.type("struct maple_tree"), space, 0x100)
    put(memory, 0x100, 0, 0)
    assert list(tree.maple_()) == []
    first = leaf(memory, BASE, [0xFFF, 0x1FFF, 0x4FFF], [0, 0x5000, 0x6000])
    last = leaf(memory, BASE + 256, [0x7FFF, 2**64 - 1], [0x7000, 0, 99])
    put(memory, 0x100, 0, first | ROOT)
    assert list(tree.maple_())[:2] == [(0x1000, 0x1FFF, 0x5000), (0x2000, 0x4FFF, 0x6000)]
    memory.write(BASE + 512, bytes(240))
    put(memory, BASE + 512 + 8, 0x4FFF, 2**64 - 1)
    put(memory, BASE + 512 + 80, first, last)
    put(memory, 0x100, 0, maple(BASE + 512, ARANGE) | ROOT)
    assert list(tree.maple_()) == [(0x1000, 0x1FFF, 0x5000), (0x2000, 0x4FFF, 0x6000), (0x5000, 0x7FFF, 0x7000)]


def test_a_maple_tree_has_one_entry_without_a_node(known):
    types, space, memory = known
    put(memory, 0x100, 0, 0x5000)
    assert list(trees.maple(types, space, 0x100)) == [(0, 0, 0x5000)]


def test_maple_trees_that_loop_end(known):
    types, space, memory = known
    entry = maple(BASE, RANGE)
    memory.write(BASE, bytes(256))
    put(memory, BASE + 8, *range(1, 16))
    put(memory, BASE + 128, *[entry] * 16)
    put(memory, 0x100, 0, entry | ROOT)
    with pytest.raises(ValueError, match="has a node of kind 2 at depth"):
        list(trees.maple(types, space, 0x100))
    put(memory, 0x100, 0, maple(BASE, 7) | ROOT)
    with pytest.raises(ValueError, match="has a node of kind 7 at depth 0"):
        list(trees.maple(types, space, 0x100))
