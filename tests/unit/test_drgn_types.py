"""drgn's types from BTF sections that the test makes, honest ones and others."""

import btfs
import drgn
import pytest
from pcanel.kernel.btf import Btf
from pcanel.kernel.variables import table


def _btf(section):
    prog = drgn.Program(drgn.Platform(drgn.Architecture.X86_64))
    return Btf(prog, section.blob())


def test_structs_enumerators_and_typedefs():
    section = btfs.Section()
    number = section.integer("int", 4, 1)
    place = section.struct("place", 8, [("x", number, 0), ("bits", number, 3 << 24 | 32)], flag=1)
    section.add(btfs.TYPEDEF, "place_t", place)
    section.add(btfs.ENUM, "kind", 4, [(section.name("RED"), 7)])
    btf = _btf(section)
    found = btf.find_type({drgn.TypeKind.STRUCT}, "place")
    assert found.size == 8 and [member.name for member in found.members] == ["x", "bits"]
    assert found.members[1].bit_field_size == 3 and found.members[0].type.is_signed
    assert btf.find_type({drgn.TypeKind.TYPEDEF}, "place_t").type == found
    assert btf.find_type({drgn.TypeKind.UNION}, "place") is None and btf.find_type({drgn.TypeKind.STRUCT}, "x") is None
    assert btf.find_constant("RED").value_() == 7 and btf.find_constant("BLUE") is None


def test_sections_that_lie():
    with pytest.raises(ValueError, match="does not begin as BTF does"):
        Btf(drgn.Program(drgn.Platform(drgn.Architecture.X86_64)), b"nothing of the kind, at all")
    section = btfs.Section()
    section.add(btfs.TYPEDEF, "loop", 2)
    section.add(btfs.TYPEDEF, "pool", 1)
    section.add(btfs.PTR, "", 99)
    section.add(btfs.TYPEDEF, "far", 3)
    btf = _btf(section)
    with pytest.raises(LookupError, match="without end"):
        btf.find_type({drgn.TypeKind.TYPEDEF}, "loop")
    with pytest.raises(LookupError, match="has no type 99"):
        btf.find_type({drgn.TypeKind.TYPEDEF}, "far")


def test_a_modules_section_goes_on_where_the_kernels_ends():
    """Numbers and names of both: a struct whose name the kernel's strings have, with a member of the kernel's type."""
    kernel = btfs.Section()
    number = kernel.integer("int", 4, 1)
    kernel.struct("place", 8, [("x", number, 0)])
    below = _btf(kernel)
    names = len(kernel.strings)
    split = btfs.Section()
    split.strings = b""  # no empty name at its beginning

    def name(text):
        at = kernel.strings.find(b"\0" + text.encode() + b"\0")
        if at >= 0:
            return at + 1
        split.strings += text.encode() + b"\0"
        return names + len(split.strings) - len(text) - 1

    split.name = name
    split.add(btfs.TYPEDEF, "first", 2)  # number 3
    split.struct("x", 16, [("place", 3, 0), ("own", 1, 64)])
    split.add(btfs.ENUM, "kind", 4, [(name("GREEN"), 9)])
    split.add(btfs.PTR, "", 77)
    drgn_of = Btf(below._prog, split.blob(), below)
    found = drgn_of.find_type({drgn.TypeKind.STRUCT}, "x")
    assert found.size == 16 and [member.name for member in found.members] == ["place", "own"]
    assert found.members[0].type.type.tag == "place" and found.members[0].type.type.size == 8
    assert found.members[1].type.type_name() == "int" and drgn_of.find_constant("GREEN").value_() == 9
    assert drgn_of.find_type({drgn.TypeKind.TYPEDEF}, "first").type_name() == "first"
    assert drgn_of.find_type({drgn.TypeKind.STRUCT}, "place") is None  # the kernel's is asked for there
    with pytest.raises(LookupError, match="has no type 77"):
        drgn_of.type(6)


def test_the_table_of_variables_has_types():
    assert table()["init_task"] == ["struct task_struct"] and table()["avenrun"] == ["unsigned long[3]"]
    assert len(table()) > 140 and all(all(kinds) for kinds in table().values())
