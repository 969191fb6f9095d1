"""vmm/insight: types, objects and lists over BTF sections made here; what lies in them ends in one clear error."""

import struct

import pytest
from btfs import ARRAY, AT, ENUM, ENUM64, PTR, TYPEDEF, UNION, Section, types
from hypothesis import given
from hypothesis import strategies as st

from vmm.insight import objects

TASK = 0x8000
TEXT = """struct task {  // 128 bytes
    0x0 pid_t pid
    0x4 _Bool flag
    0x8 enum kind kind
    0x10 char comm[16]
    0x20 struct list_head tasks
    0x30 struct task *parent
    0x38 unsigned int grid[2][3]
    union {
        0x50 long unsigned int whole
        struct {
            0x50 unsigned int low
            0x54 unsigned int high
        }
    }
    0x58 enum wide wide
    0x60 char *name
    0x68 struct bits bits
    0x70 int (*call)()
    0x78 unsigned int tail[0]
}"""


def kernel():
    """A section with a struct that has a bit of everything."""
    made = Section()
    uint = made.integer("unsigned int", 4)
    ulong = made.integer("long unsigned int", 8)
    number = made.integer("int", 4, 1)
    char = made.integer("char", 1, 1)
    boolean = made.integer("_Bool", 1, 4)
    node = len(made.types) + 1
    made.struct("list_head", 16, [("next", node + 1, 0), ("prev", node + 1, 64)])
    made.add(PTR, size=node)
    pid = made.add(TYPEDEF, "pid_t", number)
    kind = made.add(ENUM, "kind", 4, [(made.name("ALPHA"), 0), (made.name("BETA"), 0xFFFFFFFF)], flag=1)
    wide = made.add(ENUM64, "wide", 8, [(made.name("LARGE"), 1, 2)])
    comm = made.array(char, 16)
    grid = made.array(made.array(uint, 3), 2)
    tail = made.array(uint, 0)
    halves = made.struct("", 8, [("low", uint, 0), ("high", uint, 32)])
    whole = made.struct("", 8, [("whole", ulong, 0), ("", halves, 0)], UNION)
    bits = made.struct(
        "bits", 4, [("a", uint, 3 << 24), ("b", number, 5 << 24 | 3), ("c", uint, 20 << 24 | 12)], flag=1
    )
    text = made.add(PTR, size=char)
    call = made.add(PTR, size=made.add(13, size=number))  # FUNC_PROTO
    task = len(made.types) + 2
    parent = made.add(PTR, size=task)
    assert task == made.struct("task", 128, [
        ("pid", pid, 0), ("flag", boolean, 32), ("kind", kind, 64), ("comm", comm, 128), ("tasks", node, 256),
        ("parent", parent, 384), ("grid", grid, 448), ("", whole, 640), ("wide", wide, 704), ("name", text, 768),
        ("bits", bits, 832), ("call", call, 896), ("tail", tail, 960),
    ])  # fmt: skip
    return made


def task_at(gva=TASK):
    """(Types, Space, the struct task at gva)."""
    names, space = types(kernel().blob())
    return names, space, objects.Object(names.type("struct task"), space, gva)


def put(space, code, gva, *values):
    space.memory.write(gva, struct.pack("<" + code, *values))


def test_types_print_as_in_c():
    names, _ = types(kernel().blob())
    assert repr(names.type("struct task")) == TEXT
    assert repr(names.type("enum kind")) == "enum kind {ALPHA = 0, BETA = -1}"
    assert names.type("enum wide").value("LARGE") == 0x2_0000_0001
    assert repr(names.type("unsigned long")) == repr(names.type("long unsigned int")) == "long unsigned int  // 8 bytes"
    assert names.type("struct task *").declare("p") == "struct task *p"
    assert names.type("pid_t [4]").size == 16
    assert names.type("struct task").offset("tasks.prev") == 0x28


def test_members_have_the_values_of_their_types():
    _, space, task = task_at()
    put(space, "iBxxxi4x16s", TASK, -7, 1, -1, b"bash\0rubbish")
    put(space, "6I", TASK + 0x38, *range(6))
    put(space, "QQ", TASK + 0x50, 0x8000_0001_0000_0002, 0x2_0000_0001)
    put(space, "I", TASK + 0x68, 0b101 | 0b10000 << 3 | 0xABCDE << 12)
    assert (task.pid, task.flag, task.comm) == (-7, True, "bash")
    assert task.kind == "BETA" and task.kind == -1 and repr(task.kind) == "BETA (-1)"
    assert (task.whole, task.low, task.high) == (0x8000_0001_0000_0002, 2, 0x8000_0001)
    assert [list(row) for row in task.grid] == [[0, 1, 2], [3, 4, 5]]
    assert task.wide == "LARGE"
    assert (task.bits.a, task.bits.b, task.bits.c) == (5, -16, 0xABCDE)
    assert len(task.tail) == 0 and task.tail[1] == 0
    assert "comm = 'bash'" in repr(task) and "whole = 9223372041149743106" in repr(task)
    with pytest.raises(IndexError):
        task.grid[2]


def test_pointers_are_followed():
    _, space, task = task_at()
    put(space, "Q", TASK + 0x30, TASK + 0x100)
    put(space, "i", TASK + 0x100, 99)
    put(space, "Q", TASK + 0x60, 0xA000)
    space.memory.write(0xA000, b"x" * 100 + b"\0")
    assert task.parent.pid == task.parent[0].pid == 99
    assert task.parent == TASK + 0x100 and task.parent[0].pointer_() == task.parent
    assert repr(task.parent) == "(struct task *) 0x8100"
    assert task.name.string_() == "x" * 100 and task.name.string_(70) == "x" * 70
    assert not task.parent.parent
    with pytest.raises(ValueError, match=r"^struct task \* is NULL: no pid$"):
        _ = task.parent.parent.pid
    with pytest.raises(AttributeError, match=r"^struct task has no member nope$"):
        _ = task.parent.nope
    with pytest.raises(AttributeError):
        _ = task.name.pid


def test_members_are_listed_and_completed():
    names, space, task = task_at()
    known = ["pid", "flag", "kind", "comm", "tasks", "parent", "grid", "wide", "name", "bits", "call", "tail"]
    assert task.members_() == task.parent.members_() == [*known, "whole", "low", "high"]
    assert task.complete_attributes("t") == ["tasks", "tail"] and task.complete_attributes("hi") == ["high"]
    assert task.call.members_() == task.name.members_() == []
    put(space, "Q", TASK + 0x30, 0x9000)
    assert task.parent.at_("tasks.prev") == 0x9028


def test_an_array_without_a_length_may_hold_a_string():
    made = Section()
    char = made.integer("char", 1, 1)
    made.struct("named", 4, [("name", made.array(char, 0), 32)])
    names, space = types(made.blob())
    space.memory.write(TASK + 4, b"n\xc3\xb6n\0rest")
    assert objects.Object(names.type("struct named"), space, TASK).name.string_() == "n\xf6n"


def test_containers_and_lists():
    names, space, task = task_at()
    assert objects.container_of(names, space, TASK + 0x20, "struct task", "tasks") == task
    nodes = [0x9020, 0x9120, 0x9220]
    for at, following in zip([TASK + 0x20] + nodes, nodes + [TASK + 0x20], strict=True):
        put(space, "Q", at, following)
    assert [entry.gva_ for entry in task.tasks.list_("struct task", "tasks")] == [0x9000, 0x9100, 0x9200]
    put(space, "Q", nodes[2], nodes[1])
    with pytest.raises(ValueError, match="^the list at 0x8020 loops: it does not come back to its head$"):
        list(task.tasks.list_("struct task", "tasks"))
    put(space, "Q", nodes[2], 0)
    assert len(list(objects.hlist(names, space, TASK + 0x20, "struct task", "tasks"))) == 3


def test_a_name_that_is_not_there_and_one_that_is_there_twice():
    made = kernel()
    made.struct("task", 4, [("other", 1, 0)])
    names, _ = types(made.blob())
    with pytest.raises(ValueError, match=r"^2 types are called struct task \(0: 128 bytes, 1: 4 bytes\): say which=$"):
        names.type("struct task")
    assert names.type("struct task", 1).size == 4
    with pytest.raises(ValueError, match="^the guest's BTF has no type struct nope$"):
        names.type("struct nope")
    with pytest.raises(ValueError):
        names.type("struct ")


def lie(kind, size, **more):
    made = kernel()
    number = len(made.types) + 1
    made.add(TYPEDEF, "lie", number + 1)
    made.add(kind, "deep", size or number + 1, **more)
    names, space = types(made.blob())
    return objects.get(names.type("lie"), space, TASK)


def test_lies_about_types_are_one_line():
    with pytest.raises(ValueError, match="leads through 32 others"):
        lie(TYPEDEF, 0)
    with pytest.raises(ValueError, match="no type has ID 77777"):
        lie(TYPEDEF, 77777)
    with pytest.raises(ValueError, match="too large"):
        names, space = types(kernel().blob())
        objects.get(names.type("unsigned long [1000000000]"), space, TASK)
    made = kernel()
    own = len(made.types) + 1
    made.struct("self", 8, [("", own, 0)])
    names, _ = types(made.blob())
    with pytest.raises(ValueError, match="structs in structs"):
        names.type("struct self").member("x")
    assert len(repr(names.type("struct self"))) < 1000
    made.add(ARRAY, words=[len(made.types) + 1, 1, 1])
    made.add(TYPEDEF, "ring", len(made.types))
    names, space = types(made.blob())
    with pytest.raises(ValueError, match="too large"):
        objects.get(names.type("ring"), space, TASK)


def test_a_broken_section_is_refused():
    blob = kernel().blob()
    for at, value in ((0, 0), (4, 0x7FFFFFFF), (12, 0xFFFFFFF0), (16, 0xFFFFFFF0), (12, 40), (24 + 4, 31 << 24)):
        broken = bytearray(blob)
        struct.pack_into("<I", broken, at, value)
        with pytest.raises(ValueError, match="BTF"):
            types(bytes(broken))


def test_a_section_in_pieces_is_refused():
    blob = kernel().blob() + bytes(8192)
    names, space = types(blob)
    with pytest.raises(ValueError, match="not contiguous"):
        type(names.btf)(space.memory, lambda gva: gva + (0x1000 if gva > AT else 0), AT, len(blob))


@given(st.randoms(use_true_random=False))
def test_whatever_a_section_says_ends(random):
    blob = bytearray(kernel().blob())
    for _ in range(random.randrange(1, 6)):
        blob[random.randrange(24, len(blob))] = random.randrange(256)
    try:
        names, space = types(bytes(blob))
        for name in ("struct task", "struct bits", "pid_t", "enum kind"):
            type = names.type(name)
            repr(type)
            repr(objects.get(type, space, TASK))
    except (ValueError, AttributeError) as error:
        assert "\n" not in str(error)
