"""16550A against its data sheet, a model of its FIFOs, and the sequences of Linux's 8250 driver."""

from functools import partial

from clock import Line
from hypothesis import given
from hypothesis import strategies as st

from vmm.devices.uart16550 import Uart16550
from vmm.devices.uart16550_registers import MSR_CTS, MSR_DCD, MSR_DSR, MSR_RI

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)
THR, FCR, DLL, DLM = RBR, IIR, RBR, IER


class Port:
    """A UART whose output goes into `out` while `room` lasts."""

    def __init__(self, room=1 << 30):
        self.room = room
        self.out = []
        self.pins = []
        self.line = Line()
        self.drains = 0
        self.chip = Uart16550(self.tx, self.line, self.pins.append, self.drain)

    def tx(self, byte):
        if self.room <= 0:
            return False
        self.room -= 1
        self.out.append(byte)
        return True

    def drain(self):
        self.drains += 1

    def get(self, offset):
        return self.chip.read(offset, 1)

    def put(self, offset, value):
        self.chip.write(offset, 1, value)


def test_reset_values():
    p = Port()
    assert [p.get(r) for r in (IER, IIR, LCR, MCR, LSR, SCR)] == [0, 1, 0, 0, 0x60, 0]
    assert p.get(MSR) == MSR_CTS | MSR_DSR | MSR_DCD


def test_linux_autoconfig_finds_a_16550a():
    p = Port()
    p.put(IER, 0)
    assert p.get(IER) & 0x0F == 0
    p.put(IER, 0xFF)
    assert p.get(IER) == 0x0F
    p.put(IER, 0)
    p.put(MCR, 0x1A)  # LOOP, OUT2, RTS
    assert p.get(MSR) & 0xF0 == 0x90
    p.put(MCR, 0)
    p.put(LCR, 0xBF)
    p.put(IIR, 0)  # EFR of other chips
    p.put(LCR, 0)
    p.put(FCR, 1)
    assert p.get(IIR) >> 6 == 3
    p.put(FCR, 0xE7)  # TI16750: 64-byte FIFO would show in IIR bit 5
    assert p.get(IIR) >> 5 == 6
    p.put(LCR, 0x80)
    p.put(FCR, 0xE7)
    assert p.get(IIR) >> 5 == 6
    p.put(LCR, 0)
    p.put(IER, 0x40)  # XScale
    assert p.get(IER) == 0


def test_linux_startup_sees_neither_txen_nor_thre_bug():
    p = Port()
    p.put(FCR, 7)
    p.put(MCR, 8)
    p.put(IER, 2)
    assert p.get(LSR) & 0x40 and p.get(IIR) & 0x0F == 2  # UART_BUG_TXEN: no interrupt
    assert p.get(IIR) & 0x0F == 1
    p.put(IER, 0)
    p.put(IER, 2)
    assert p.get(IIR) & 0x0F == 2  # UART_BUG_THRE: not asked again


def test_divisor_latch_and_scratch():
    p = Port()
    p.put(LCR, 0x83)
    p.put(DLL, 0x34)
    p.put(DLM, 0x12)
    assert (p.get(DLL), p.get(DLM)) == (0x34, 0x12)
    p.put(LCR, 0x03)
    assert p.get(IER) == 0 and p.out == []
    p.put(SCR, 0x1A5)
    assert p.get(SCR) == 0xA5


def test_transmit_interrupt_once_for_a_full_fifo():
    p = Port()
    p.put(FCR, 1)
    p.put(MCR, 8)
    p.put(IER, 2)
    assert p.line.rises == 1
    assert p.get(IIR) == 0xC2 and p.line.level == 0
    for i in range(16):
        p.put(THR, i)
    assert p.line.rises == 2 and p.out == list(range(16))
    assert p.get(LSR) == 0x60


def test_out2_gates_the_line_from_when_it_has_been_set():
    p = Port()
    p.put(MCR, 8)
    p.put(IER, 1)
    p.put(MCR, 0)
    p.chip.rx(65)
    assert p.line.level == 0 and p.get(IIR) == 4
    p.put(MCR, 8)
    assert p.line.level == 1
    p.put(MCR, 3)
    assert p.line.level == 0
    p.chip.reset()
    p.put(IER, 2)
    assert p.line.level == 1


def test_a_guest_that_knows_of_no_gate_gets_its_interrupts():
    """As with QEMU's UART, as long as OUT2 has never been set."""
    p = Port()
    p.put(IER, 1)
    p.chip.rx(65)
    assert p.line.level == 1 and p.get(IIR) == 4
    assert p.get(RBR) == 65
    assert p.line.level == 0 and p.get(IIR) == 1


def test_out2_in_loopback_is_no_sign_of_a_gate():
    p = Port()
    p.put(MCR, 0x1A)
    p.put(MCR, 0)
    p.put(IER, 1)
    p.chip.rx(65)
    assert p.line.level == 1


def test_back_pressure():
    p = Port(room=2)
    p.put(FCR, 1)
    p.put(MCR, 8)
    p.put(IER, 2)
    p.get(IIR)
    for i in range(20):
        p.put(THR, i)
    assert p.out == [0, 1] and p.get(LSR) & 0x60 == 0 and p.get(IIR) == 0xC1
    assert p.chip.pending() == 16  # 2..17 wait, 18 and 19 found no room
    p.room = 3
    p.chip.poll()
    assert p.out == [0, 1, 2, 3, 4] and p.get(LSR) & 0x20 == 0
    rises = p.line.rises
    p.room = 100
    p.chip.poll()
    assert p.out == list(range(18)) and p.line.rises == rises + 1 and p.get(LSR) == 0x60
    p.room = 0
    p.put(THR, 50)
    p.room = 1
    assert p.get(LSR) == 0x60 and p.out[-1] == 50  # a look at LSR tries again


def test_thr_holds_one_without_fifo():
    p = Port(room=0)
    p.put(THR, 1)
    p.put(THR, 2)
    p.room = 9
    p.chip.poll()
    assert p.out == [1]


def test_receive_trigger_timeout_and_drain():
    p = Port()
    p.put(FCR, 0x81)  # trigger at 8
    p.put(MCR, 8)
    p.put(IER, 1)
    for i in range(7):
        p.chip.rx(i)
    assert p.get(IIR) == 0xCC and p.line.level == 1
    p.chip.rx(7)
    assert p.get(IIR) == 0xC4
    assert [p.get(RBR) for _ in range(8)] == list(range(8))
    assert p.line.level == 0 and p.get(IIR) == 0xC1 and p.drains == 1 and p.get(LSR) == 0x60
    assert p.get(RBR) == 0


def test_overrun_and_break():
    p = Port()
    p.put(FCR, 1)
    p.put(MCR, 8)
    p.put(IER, 4)
    for i in range(17):
        p.chip.rx(i)
    assert p.chip.overruns == 1
    assert p.get(IIR) == 0xC6 and p.line.level == 1
    assert p.get(LSR) == 0x63
    assert p.line.level == 0 and p.get(LSR) == 0x61
    assert [p.get(RBR) for _ in range(16)] == list(range(16))
    p.chip.rx(1)
    p.chip.rx_break()
    assert p.get(LSR) == 0xE1
    p.get(RBR)
    assert p.get(LSR) == 0xF1
    assert p.get(RBR) == 0 and p.get(LSR) == 0x60


def test_loopback():
    p = Port()
    p.put(FCR, 1)
    p.put(MCR, 0x13)
    p.put(THR, 0x55)
    assert p.out == [] and p.get(LSR) == 0x61 and p.get(RBR) == 0x55
    p.chip.rx(1)
    assert p.chip.feed(lambda: 1) == 0
    assert p.get(LSR) & 1 == 0
    assert p.get(MSR) >> 4 == 0x3  # RTS and DTR come back as CTS and DSR
    p.put(MCR, 0x03)
    assert p.get(MSR) & 0xF0 == MSR_CTS | MSR_DSR | MSR_DCD
    assert p.pins[-1] == 3


def test_modem_lines():
    p = Port()
    p.put(MCR, 8)
    p.put(IER, 8)
    p.get(MSR)
    p.chip.modem_in(MSR_DSR | MSR_DCD | MSR_RI)
    assert p.line.level == 1 and p.get(IIR) == 0
    assert p.get(MSR) == MSR_DSR | MSR_DCD | MSR_RI | 0x01  # RI counts when it ends
    assert p.line.level == 0 and p.get(MSR) & 0x0F == 0
    p.chip.modem_in(MSR_DSR | MSR_DCD)
    assert p.get(MSR) & 0x0F == 4
    p.put(LCR, 0x40)
    assert p.pins[-1] == 0x48


def test_priorities():
    p = Port()
    p.put(MCR, 8)
    p.put(IER, 0x0F)
    p.chip.modem_in(0)
    p.chip.rx_break()
    assert p.get(IIR) == 6
    p.get(LSR)
    assert p.get(IIR) == 4
    p.get(RBR)
    assert p.get(IIR) == 2
    assert p.get(IIR) == 0
    p.get(MSR)
    assert p.get(IIR) == 1


@given(st.randoms(use_true_random=False))
def test_nothing_is_lost_or_reordered(rnd):
    """Random writers, readers and room on both sides: what goes in comes out, once and in order."""
    p = Port(room=0)
    p.put(FCR, 1)
    p.put(MCR, 8)
    p.put(IER, rnd.randrange(16))
    sent = received = 0
    got = []
    for _ in range(rnd.randrange(200)):
        what = rnd.randrange(6)
        if what == 0:
            if p.get(LSR) & 0x20:
                for _ in range(rnd.randrange(1, 17)):
                    p.put(THR, sent & 0xFF)
                    sent += 1
        elif what == 1:
            p.room = rnd.randrange(20)
            p.chip.poll()
        elif what == 2:
            waiting = [i & 0xFF for i in range(received, received + rnd.randrange(20))]
            received += p.chip.feed(partial(next, iter(waiting), -1))
        elif what == 3:
            while p.get(LSR) & 1:
                got.append(p.get(RBR))
        elif what == 4:
            p.put(IER, rnd.randrange(16))
        else:
            cause = p.get(IIR) & 0x0F
            assert cause in (0, 1, 2, 4, 6, 12)
            if cause != 2:  # reading a THRE cause clears it, and may take the line down
                assert p.line.level == (cause != 1)
        assert p.chip.overruns == 0
    p.room = 1 << 20
    p.chip.poll()
    while p.get(LSR) & 1:
        got.append(p.get(RBR))
    assert p.out == [i & 0xFF for i in range(sent)]
    assert got == [i & 0xFF for i in range(received)]


@given(st.randoms(use_true_random=False))
def test_any_access_is_survived(rnd):
    p = Port(room=5)
    for _ in range(200):
        what = rnd.randrange(8)
        if what < 3:
            value = p.chip.read(rnd.randrange(9), 1)
            assert 0 <= value < 0x100
        elif what < 6:
            p.chip.write(rnd.randrange(9), 1, rnd.getrandbits(32))
        elif what == 6:
            p.chip.rx(rnd.getrandbits(8))
        else:
            p.chip.modem_in(rnd.getrandbits(8))
            p.room += 3
            p.chip.poll()
