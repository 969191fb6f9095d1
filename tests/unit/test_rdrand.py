"""vmm/handlers/rdrand.py: operands of each size, and the flags."""

import pytest
from vcpus import GPRS, Vcpu

from vmm import verdict
from vmm.handlers import rdrand

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


def test_numbers_differ():
    vcpu = Vcpu()
    vcpu.rflags, seen = 2, set()
    vcpu.instr_info = 3 << 3 | 2 << 11
    for _ in range(4):
        assert rdrand.rdrand(vcpu) == verdict.ADVANCE
        seen.add(vcpu.rbx)
    assert len(seen) == 4
