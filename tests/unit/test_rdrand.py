"""vmm/handlers/rdrand.py: operands of each size, and the flags."""

from array import array

import pytest
from uctypes import addressof
from vcpus import GPRS, Vcpu

from vmm import verdict
from vmm.handlers import rdrand
from vmm.vtx import frame
from vmm.vtx.vmcs_bits import RIGHTS_DB, RIGHTS_L

VALUE = 0x1122334455667788
STATUS = 0x8D5


@pytest.mark.parametrize(
    ("size", "code", "old", "got"),
    [
        (0, b"\x66\x0f\xc7\xf0", 2**64 - 1, 0xFFFFFFFFFFFF7788),
        (1, b"\x66\x0f\xc7\xf0", 2**64 - 1, 0xFFFFFFFFFFFF7788),  # as Bochs reports it
        (1, b"\x0f\xc7\xf0", 2**64 - 1, 0x55667788),
        (2, b"\x48\x0f\xc7\xf0", 0, VALUE),
    ],
)
@pytest.mark.parametrize("register", range(16))
def test_a_value_in_each_register(size, code, old, got, register):
    vcpu = Vcpu()
    vcpu.rip, vcpu.length = 0x100, len(code)
    vcpu.vm.memory.write(0x100, code)
    vcpu.instr_info = register << 3 | size << 11
    vcpu.rflags = 0x246 | STATUS & ~1
    setattr(vcpu, GPRS[register], old)
    assert rdrand.put(vcpu, VALUE) == verdict.ADVANCE
    assert getattr(vcpu, GPRS[register]) == got
    assert vcpu.rflags == 0x203


def quick(instr_info, length, rights, old):
    """(verdict, the register, RFLAGS, what is dirty) after the viper half."""
    words = array("I", [0] * 0x400)
    register = instr_info >> 3 & 15
    words[frame.INSTR_INFO], words[frame.LENGTH], words[frame.CS_RIGHTS] = instr_info, length, rights
    words[frame.RFLAGS] = 0x246 | STATUS & ~1
    words[2 * register], words[2 * register + 1] = old & 0xFFFFFFFF, old >> 32
    numbers = array("I", [1, 0, VALUE & 0xFFFFFFFF, VALUE >> 32])
    done = rdrand.quick(addressof(words), addressof(numbers), None)
    return done, words[2 * register] | words[2 * register + 1] << 32, words[frame.RFLAGS], words[frame.DIRTY]


@pytest.mark.parametrize("register", [i for i in range(16) if GPRS[i] != "rsp"])
def test_what_the_exit_tells_is_enough_in_most_cases(register):
    done = (verdict.ADVANCE, VALUE, 0x203, frame.DIRTY_RFLAGS)
    assert quick(register << 3 | 2 << 11, 4, RIGHTS_L, 0) == done
    short = 3 if register < 8 else 4  # with REX
    done = (verdict.ADVANCE, VALUE & 0xFFFFFFFF, 0x203, frame.DIRTY_RFLAGS)
    assert quick(register << 3 | 1 << 11, short, RIGHTS_L, 2**64 - 1) == done
    assert quick(register << 3 | 1 << 11, short, RIGHTS_DB, 2**64 - 1) == done


@pytest.mark.parametrize(
    ("instr_info", "length", "rights"),
    [
        (1 << 11, 4, RIGHTS_L),  # 16 bits, or a needless prefix
        (9 << 3 | 1 << 11, 5, RIGHTS_L),
        (1 << 11, 3, 0),  # 16-bit code
        (0, 4, RIGHTS_DB),
        (4 << 3 | 2 << 11, 4, RIGHTS_L),  # RSP
    ],
)
def test_and_where_it_is_not_nothing_is_done(instr_info, length, rights):
    assert quick(instr_info, length, rights, 5) == (-1, 5, 0x246 | STATUS & ~1, 0)


def test_numbers_differ():
    words, seen = array("I", [0] * 0x400), set()
    words[frame.INSTR_INFO] = 3 << 3 | 2 << 11
    for _ in range(4):
        assert rdrand.rdrand(addressof(words)) == verdict.ADVANCE
        seen.add(words[frame.RBX] | words[frame.RBX + 1] << 32)
    assert len(seen) == 4


def test_a_number_of_16_bits():
    """The way that asks for prefixes."""
    vcpu = Vcpu()
    vcpu.rip, vcpu.length = 0x100, 4
    vcpu.vm.memory.write(0x100, b"\x66\x0f\xc7\xf3")
    vcpu.instr_info, vcpu.rbx, vcpu.rflags = 3 << 3 | 1 << 11, 0x7766554433220000, 2
    seen = set()
    for _ in range(4):
        assert rdrand.slowly(vcpu) == verdict.ADVANCE
        assert vcpu.rbx >> 16 == 0x776655443322
        seen.add(vcpu.rbx & 0xFFFF)
    assert len(seen) > 1
