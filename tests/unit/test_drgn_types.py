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


def test_the_table_of_variables_has_types():
    assert table()["init_task"] == ["struct task_struct"] and table()["avenrun"] == ["unsigned long[3]"]
    assert len(table()) > 140 and all(all(kinds) for kinds in table().values())
