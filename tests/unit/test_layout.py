"""Layouts of structs for views of systems: places are those of a C compiler, values those that the bytes have."""

import ctypes

import pytest

from vmm.insight.layout import Layout


class Space:
    def __init__(self, data):
        self.data = data

    def read(self, gva, size):
        return self.data[gva : gva + size]


class _C(ctypes.Structure):
    _fields_ = (
        ("a", ctypes.c_uint8),
        ("b", ctypes.c_uint32),
        ("c", ctypes.c_int16),
        ("d", ctypes.c_uint64),
        ("e", ctypes.c_uint8 * 3),
        ("f", ctypes.c_void_p),
        ("g", ctypes.c_uint16 * 2),
        ("h", ctypes.c_char * 5),
    )


TEXT = "u8 a; u32 b; s16 c; u64 d; u8 e[3]; ptr f; u16 g[2]; char h[5];"


def test_members_lie_where_a_compiler_puts_them():
    layout = Layout(TEXT)
    assert {m.name: m.offset for m in layout.members} == {name: getattr(_C, name).offset for name, _ in _C._fields_}
    assert layout.size == ctypes.sizeof(_C) and layout.offset("f") == _C.f.offset


def test_a_32_bit_abi_aligns_to_4():
    layout = Layout("u8 a; u64 b; ptr c, d; u16 e;", word=4)
    assert [m.offset for m in layout.members] == [0, 4, 12, 16, 20] and layout.size == 24


def test_values():
    c = _C(200, 0xDEADBEEF, -2, 1 << 63, (1, 2, 3), 0x1234567890, (7, 8), b"ab")
    record = Layout(TEXT).read(Space(b"??" + bytes(c)), 2)
    assert (record.a, record.b, record.c, record.d) == (200, 0xDEADBEEF, -2, 1 << 63)
    assert (record.e, record.f, record.g, record.h) == (b"\1\2\3", 0x1234567890, (7, 8), "ab")
    assert record.gva_ == 2 and "h='ab'" in repr(record)
    with pytest.raises(AttributeError):
        print(record.nothing)


def test_places_that_are_named():
    layout = Layout("u32 state @ 0x10; char name[4] @ 0x20; u8 last")
    assert [m.offset for m in layout.members] == [0x10, 0x20, 0x24] and layout.size == 0x28


@pytest.mark.parametrize(
    "text", ["int a", "u32", "u32 a[x]", "u32 a @ b", "u32 a b", "u8 a[100000]", "struct task *next"]
)
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError, match="a type|name|more than"):
        Layout(text)
