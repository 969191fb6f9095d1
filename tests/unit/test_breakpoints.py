"""Breakpoints of what is done for the guest, against the rule of SDM Vol. 3B, "Debug Registers", byte by byte."""

from hypothesis import given
from hypothesis import strategies as st
from vcpus import Vcpu

from vmm.vtx import reasons, vmcs
from vmm.vtx.breakpoints import Breakpoints, matching

ENABLED = 1 << 12
READ, WRITE = (3,), (1, 3)


def dr7(n, kind, length, enabled=True):
    return (kind | (0, 0, 1, 0, 3, 0, 0, 0, 2)[length] << 2) << 16 + 4 * n | (1 << 2 * n if enabled else 0)


@given(
    st.sampled_from((1, 2, 4, 8)), st.integers(0, 32), st.sampled_from((1, 2, 4, 8, 16)), st.integers(0, 32),
    st.sampled_from((0, 1, 2, 3)), st.sampled_from((READ, WRITE, (2,))),
)  # fmt: skip
def test_an_access_meets_a_breakpoint_where_a_byte_is_both_s(length, address, size, first, kind, kinds):
    covered = set(range(address & -length, (address & -length) + length))
    meets = kind in kinds and not covered.isdisjoint(range(first, first + size))
    found = matching(dr7(0, kind, length), (address, 99, 99, 99), first, size, kinds)
    assert found == (ENABLED | 1 if meets else 0)


def test_those_that_are_not_enabled_show_beside_one_that_is():
    addresses = (0x1000, 0x1001, 0x1000, 0x2000)
    others = dr7(0, 1, 1, False) | dr7(1, 3, 1, False) | dr7(2, 3, 4, False)
    assert matching(others, addresses, 0x1000, 2, WRITE) == 0
    assert matching(others | 1 << 5, addresses, 0x1000, 2, WRITE) == ENABLED | 7
    assert matching(others | 1 << 5, addresses, 0x1000, 2, READ) == ENABLED | 6


def test_addresses_of_64_bits():
    top = 0xFFFFFFFFFFFFFFF8
    assert matching(dr7(3, 3, 8), (0, 0, 0, top), top + 7, 1, READ) == ENABLED | 8


def watched():
    vcpu = Vcpu()
    vcpu.debug_registers[:2] = 0x3F8, 0x500
    return vcpu


def pending(vcpu):
    return vcpu.read(vmcs.GUEST_PENDING_DEBUG_EXCEPTIONS)


def io(vcpu, port, size, string=False):
    vcpu.reason, vcpu.qualification = reasons.IO_INSTRUCTION, port << 16 | size - 1 | string << 4


def test_ports_need_cr4_de_and_keep_what_is_pending():
    vcpu, watch = watched(), Breakpoints()
    vcpu.dr7 = dr7(0, 2, 1)
    io(vcpu, 0x3F8, 1)
    watch.completed(vcpu)
    assert pending(vcpu) == 0
    vcpu.cr4 |= 8
    vcpu.write(vmcs.GUEST_PENDING_DEBUG_EXCEPTIONS, 1 << 14)
    watch.completed(vcpu)
    assert pending(vcpu) == ENABLED | 1 | 1 << 14


def test_what_an_earlier_exit_met_is_gone():
    vcpu, watch = watched(), Breakpoints()
    vcpu.dr7 = dr7(1, 1, 4)
    watch.begin(vcpu)
    watch.memory(0x503, 1, True)
    assert watch.hits
    vcpu.entry_tsc = 6
    watch.completed(vcpu)
    assert pending(vcpu) == 0 and not watch.hits
    watch.begin(vcpu)
    watch.memory(0x503, 1, True)
    watch.completed(vcpu)
    assert pending(vcpu) == ENABLED | 2


def test_nothing_is_compared_where_nothing_is_enabled():
    vcpu, watch = watched(), Breakpoints()
    vcpu.dr7 = dr7(1, 3, 4, False) | 0x400
    watch.begin(vcpu)
    watch.memory(0x500, 4, True)
    assert not watch.armed and not watch.hits
