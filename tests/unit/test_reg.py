"""Registers with fields."""

import pytest

from vmm.vtx import controls
from vmm.vtx.reg import Bits, Reg, register


@register
class Sample(Reg):
    PORT = Bits(31, 16)
    IN = Bits(3)
    SIZE = Bits(2, 0)


def test_fields_are_read_and_written_in_place():
    value = Sample(0x0060000B)
    assert (value.PORT, value.IN, value.SIZE) == (0x60, 1, 3)
    value.PORT = 0x3F8
    value.IN = 0
    assert value.raw == 0x03F80003
    value.SIZE = 0x1F  # only the field's own bits
    assert value.raw == 0x03F80007


def test_it_prints_itself_decoded():
    assert repr(Sample(0x0060000B)) == "Sample(0x60000b: PORT=0x60 IN SIZE=0x3)"
    assert repr(Sample(0)) == "Sample(0x0: -)"


def test_overlapping_fields_are_refused():
    with pytest.raises(ValueError, match=r"Bad\.\w+ overlaps"):

        @register
        class Bad(Reg):
            A = Bits(7, 4)
            B = Bits(4)


def test_every_control_register_is_made_of_distinct_bits():
    for name in ("PinBased", "ProcBased", "ProcBased2", "ExitControls", "EntryControls", "VmxMisc", "EptVpidCap"):
        cls = getattr(controls, name)
        assert cls.fields and sum(bits.mask for _, bits in cls.fields) < 1 << 64
