"""Local APIC against the SDM's rules: a model with sets of vectors. Its timer: test_lapic_timer.py."""

import mmap
import struct

import uctypes
from hypothesis import given
from hypothesis import strategies as st
from lapics import Bench

from vmm.devices import lapic_registers as apic
from vmm.handlers import apic_msrs
from vmm.vtx.frame import APIC_PAGE, PENDING
from vmm.vtx.frame import SIZE as FRAME_SIZE

MAP_32BIT = 0x40  # of Linux: the page has a word for the frame's address


def test_after_reset():
    b = Bench(apic_id=3)
    b.apic.reset()
    assert b.get(apic.ID) == 3 << 24 and b.get(apic.VERSION) == 0x50014
    assert b.get(apic.SVR) == 0xFF and b.get(apic.DFR) == 0xFFFFFFFF
    assert b.get(apic.LVT_LINT0) == b.get(apic.LVT_TIMER) == 0x10000
    assert b.apic.deliver(0x40, 0) == 1 and b.apic.highest() == -1


def test_end_of_interrupt_offers_what_waited_for_it():
    b = Bench()
    b.apic.deliver(0xEC, 0)
    assert b.take() == 0xEC
    b.apic.deliver(0x24, 0)
    assert b.take() == -1
    b.kicks = 0
    b.put(apic.EOI, 0)
    assert b.kicks == 1 and b.take() == 0x24
    b.put(apic.EOI, 0)
    assert b.kicks == 1  # nothing waits


def test_priorities_and_tpr():
    b = Bench()
    b.apic.deliver(0x41, 0)
    b.put(apic.TPR, 0x40)
    assert b.apic.highest() == -1
    b.put(apic.TPR, 0x3F)
    assert b.take() == 0x41 and b.get(apic.PPR) == 0x40
    b.apic.deliver(0x4F, 0)
    assert b.apic.highest() == -1
    b.apic.deliver(0x50, 0)
    assert b.take() == 0x50
    b.apic.eoi()
    assert b.get(apic.PPR) == 0x40
    b.put(apic.EOI, 0)
    assert b.get(apic.PPR) == 0x3F and b.take() == 0x4F


def test_level_interrupts_are_announced_at_their_end():
    b = Bench()
    b.apic.deliver(0x61, 1)
    b.apic.deliver(0x72, 0)
    assert [b.take(), b.ended] == [0x72, []]
    b.apic.eoi()
    assert b.take() == 0x61
    b.apic.eoi()
    assert b.ended == [0x61]
    b.apic.deliver(0x61, 0)  # now as an edge
    b.take()
    b.apic.eoi()
    assert b.ended == [0x61]
    b.apic.eoi()  # nothing in service: no harm
    b.apic.deliver(0x61, 1)
    assert b.apic.level_vectors(3) == 2
    b.apic.eoi_exit(0x61)
    b.apic.eoi_exit(0x62)
    assert b.ended == [0x61, 0x61]


@given(st.randoms(use_true_random=False), st.booleans())
def test_against_sets(rnd, shadow):
    """shadow: the CPU writes TPR, and the vCPU's frame is wired."""
    b = Bench()
    words = mmap.mmap(-1, FRAME_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT)
    if shadow:
        b.apic.wire(uctypes.addressof(words), False)
        b.apic.set(apic.TPR_SHADOW, 1)
    irr = set()
    isr = set()
    tmr = set()
    ended = []
    tpr = 0
    for _ in range(200):
        what = rnd.randrange(6)
        vector = rnd.randrange(16, 256)
        if what < 2:
            trigger = rnd.randrange(2)
            assert b.apic.deliver(vector, trigger) == int(vector not in irr)
            irr.add(vector)
            if trigger:
                tmr.add(vector)
            else:
                tmr.discard(vector)
        elif what == 2:
            tpr = rnd.randrange(256)
            if shadow and rnd.randrange(2):
                tpr &= 0xF0
                b.apic.set(apic.TPR, tpr)
            else:
                b.put(apic.TPR, tpr)
        elif what == 3 and isr:
            top = max(isr)
            isr.remove(top)
            if top in tmr:
                ended.append(top)
            words[4 * PENDING] = 0
            b.apic.eoi()
            if shadow:  # what TPR alone holds up needs its threshold
                assert words[4 * PENDING] == (max(irr, default=0) >> 4 > max(isr, default=0) >> 4)
        service = max(isr) if isr else 0
        ppr = tpr if tpr >> 4 >= service >> 4 else service & 0xF0
        assert b.get(apic.PPR) == ppr
        top = max(irr) if irr else -1
        expected = top if top >> 4 > ppr >> 4 else -1
        assert b.apic.highest() == expected
        assert b.apic.pending_vector() == top
        assert b.apic.held_by_tpr() == (top >> 4 if 0 < top >> 4 <= tpr >> 4 else 0)
        assert b.apic.service_vector() == (max(isr) if isr else -1)
        if what > 3 and expected >= 0:
            b.apic.accept(expected)
            irr.remove(expected)
            isr.add(expected)
        for name, offset in ((irr, apic.IRR), (isr, apic.ISR), (tmr, apic.TMR)):
            i = rnd.randrange(8)
            assert b.get(offset + 16 * i) == sum(1 << (v & 31) for v in name if v >> 5 == i)
    assert b.ended == ended


def test_software_disabled():
    b = Bench()
    b.put(apic.LVT_TIMER, 0x20)
    b.put(apic.SVR, 0xFF)
    assert b.get(apic.LVT_TIMER) == 0x10020
    b.put(apic.LVT_TIMER, 0x30)
    assert b.get(apic.LVT_TIMER) == 0x10030
    assert b.apic.deliver(0x55, 0) == 1 and b.apic.highest() == -1
    b.put(apic.SVR, 0x1FF)
    b.put(apic.LVT_TIMER, 0x30)
    assert b.get(apic.LVT_TIMER) == 0x30


def test_esr():
    b = Bench()
    b.put(apic.LVT_ERROR, 0xFE)
    b.apic.deliver(15, 0)
    assert b.get(apic.ESR) == 0 and b.apic.highest() == 0xFE
    b.put(apic.ICR, 0x40005)
    b.put(0x3C0, 0)  # does not exist
    b.put(apic.ESR, 0)
    assert b.get(apic.ESR) == 0xE0
    b.put(apic.ESR, 0)
    assert b.get(apic.ESR) == 0


def test_ipi_destinations():
    b = Bench(apic_id=2)
    b.put(apic.ICR, 0x40031)  # self
    assert b.serve() == 0x31 and b.sent == []
    b.put(apic.ICR, 0x80032)  # all including self
    assert b.serve() == 0x32 and b.sent == [(0x80032, 0)]
    b.put(apic.ICR, 0xC0033)  # all but self
    assert b.apic.highest() == -1 and b.sent[-1] == (0xC0033, 0)
    b.put(apic.ICR_HIGH, 2 << 24)
    b.put(apic.ICR, 0x44)
    assert b.serve() == 0x44
    b.put(apic.ICR_HIGH, 3 << 24)
    b.put(apic.ICR, 0x54)
    assert b.apic.highest() == -1 and b.sent[-1] == (0x54, 3)
    b.put(apic.ICR, 0x40400)
    assert b.nmis == 1
    b.put(apic.ICR_HIGH, 0xFF000000)
    b.put(apic.ICR, 0x00500)
    assert b.sent[-1] == (0x500, 0xFF) and b.get(apic.ICR) == 0x500


def test_logical_destinations():
    b = Bench(apic_id=2)
    b.put(apic.LDR, 0x24FFFFFF)
    assert b.get(apic.LDR) == 0x24000000
    assert b.apic.matches(0x04, 1) and b.apic.matches(0xFF, 1) and not b.apic.matches(0x10, 1)
    b.put(apic.DFR, 0)
    assert b.get(apic.DFR) == 0x0FFFFFFF
    assert b.apic.matches(0x24, 1) and b.apic.matches(0xF4, 1)
    assert not b.apic.matches(0x14, 1) and not b.apic.matches(0x22, 1)
    assert b.apic.receive(0x8849, 0x24) == 1 and b.serve() == 0x49
    assert b.apic.receive(0x0849, 0x11) == 1 and b.apic.highest() == -1


def test_a_reset_takes_the_threshold_of_tpr_along():
    b = Bench()
    b.apic.set(apic.TPR_SHADOW, 1)
    b.put(apic.TPR, 0x40)
    b.apic.deliver(0x35, 0)
    b.apic.set(apic.TPR_LIMIT, b.apic.held_by_tpr())
    b.kicks = 0
    b.put(apic.TPR, 0x30)
    assert b.kicks == 1 and b.apic.held_by_tpr() == 3
    b.apic.set_base(False, False)
    assert b.kicks == 2 and b.apic.held_by_tpr() == 0 and b.get(apic.PPR) == 0


def test_x2apic_msrs():
    b = Bench(apic_id=0x25)
    assert b.apic.read_msr(0x802) == 0x25 << 24
    b.apic.set_base(True, True)
    assert b.apic.read_msr(0x802) == 0x25 and b.apic.read_msr(0x80D) == 0x20020
    assert b.apic.matches(0x20020, 1) and b.apic.matches(0x25, 0) and b.apic.matches(0xFFFFFFFF, 0)
    assert not b.apic.matches(0x10020, 1)
    assert b.apic.write_msr(0x830, 0x4041, 0x25) and b.serve() == 0x41
    assert b.apic.read_msr(0x830) == 0x4041 and b.apic.read_msr_high(0x830) == 0x25
    assert b.apic.write_msr(0x80B, 0, 0) and b.get(apic.PPR) == 0
    assert b.apic.write_msr(0x83F, 0x77, 0) and b.serve() == 0x77
    for index, low, high in (
        (0x802, 0, 0), (0x803, 0, 0), (0x80A, 0, 0), (0x80D, 0, 0), (0x80E, 0, 0), (0x831, 0, 0),
        (0x80B, 1, 0), (0x828, 1, 0), (0x808, 0x100, 0), (0x808, 0, 1), (0x80F, 0x200, 0),
        (0x810, 0, 0), (0x839, 0, 0), (0x83F, 0x100, 0), (0x830, 1 << 20, 0), (0x8FF, 0, 0), (0x83E, 4, 0),
    ):  # fmt: skip
        assert not b.apic.write_msr(index, low, high)
    for index in (0x800, 0x809, 0x80B, 0x80E, 0x831, 0x83F, 0x8FF):
        assert b.apic.read_msr(index) == -1


class Vcpu(bytearray):
    """What MSR handlers ask for: a frame that names the APIC's page, and the APIC."""

    def __init__(self, page, lapic):
        super().__init__(0x1000)
        struct.pack_into("<Q", self, 4 * APIC_PAGE, uctypes.addressof(page))
        self.lapic = lapic


def test_x2apic_registers_are_read_quickly_as_slowly():
    b = Bench(apic_id=0x25)
    page = mmap.mmap(-1, apic.SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT)
    b.apic.regs = page
    vcpu = Vcpu(page, b.apic)
    assert apic_msrs._read_low(vcpu, 0x802) == -1  # not in x2APIC mode
    b.apic.set_base(True, True)
    for offset in range(0, apic.END, 16):
        b.apic.set(offset, 0x90000000 | offset)
    for index in range(0x800, 0x840):
        assert apic_msrs._read_low(vcpu, index) == b.apic.read_msr(index)


def test_apic_write_exits_act_on_the_page():
    b = Bench(apic_id=1)
    b.page[apic.LVT_TIMER : apic.LVT_TIMER + 4] = bytes([0x40, 0xFF, 0xF8, 0xFF])
    b.apic.written(apic.LVT_TIMER)
    assert b.get(apic.LVT_TIMER) == 0x40
    b.page[apic.TIMER_INITIAL : apic.TIMER_INITIAL + 4] = bytes([100, 0, 0, 0])
    b.apic.written(apic.TIMER_INITIAL)
    b.clock.advance(200)
    assert b.take() == 0x40
    b.page[apic.ID + 3] = 9
    b.apic.written(apic.ID)
    assert b.get(apic.ID) == 1 << 24
    b.page[apic.SVR + 1] = 0
    b.apic.written(apic.SVR)
    assert b.get(apic.LVT_TIMER) & 0x10000


def test_virtual_wire():
    b = Bench()
    b.apic.lint(0, 1)
    assert not b.apic.extint()
    kicks = b.kicks
    b.put(apic.LVT_LINT0, 0x700)
    assert b.apic.extint() and b.kicks > kicks
    b.put(apic.LVT_LINT0, 0x10700)
    assert not b.apic.extint()
    b.apic.set_base(False, False)
    b.apic.lint(0, 1)
    assert b.apic.extint()
    b.apic.lint(0, 0)
    assert not b.apic.extint()
    b = Bench()
    b.put(apic.LVT_LINT1, 0x400)
    b.apic.lint(1, 1)
    b.apic.lint(1, 1)
    assert b.nmis == 1
    b.apic.receive(0x700, 0)
    assert b.apic.extint()
    b.apic.extint_taken()
    assert not b.apic.extint()


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    b = Bench()
    for _ in range(150):
        offset = rnd.randrange(0x420) if rnd.randrange(2) else 16 * rnd.randrange(0x40)
        size = (1, 2, 4, 4, 4, 8)[rnd.randrange(6)]
        what = rnd.randrange(6)
        if what < 2:
            assert 0 <= b.apic.read(offset, size) < 1 << 32
        elif what == 2:
            b.apic.write(offset, size, rnd.getrandbits(32) & rnd.getrandbits(32))
        elif what == 3:
            b.apic.write_msr(0x800 | rnd.randrange(0x100), rnd.getrandbits(rnd.randrange(1, 33)), 0)
        elif what == 4:
            b.apic.written(offset)
        else:
            b.clock.advance(rnd.randrange(20000))
            b.take()


def test_the_page_that_the_cpu_shows_the_guest_holds_registers_only():
    """Where a guest's accesses are virtualized, the first page is what it reads."""
    b = Bench()
    b.apic.wire(0x5A5A5A5A, True)
    b.apic.lint(0, 1)
    b.apic.lint(1, 1)
    b.put(apic.LVT_TIMER, 0x40040)
    b.apic.set_deadline(0x12345678, 0x9ABC)
    registers = {at for at in range(0, 0x400, 16)}
    assert {at for at in range(0, 0x1000, 4) if b.page[at : at + 4] != bytes(4)} <= registers
    assert b.apic.get(apic.FRAME_AT) == 0x5A5A5A5A and b.apic.deadline_low() == 0x12345678


def test_the_bytes_behind_a_register_are_zero():
    b = Bench()
    for offset in range(0, 0x400, 4):
        for size in (1, 2, 4):
            assert offset & 12 == 0 or b.apic.read(offset, size) == 0
    assert b.apic.read(apic.VERSION + 2, 2) == 5 and b.apic.read(apic.VERSION + 1, 4) == 0x500
