"""vmm/insight/linux/signals.py: registers and frames as Linux leaves them where a signal interrupts a call."""

import struct

from vmm.insight.linux import signals

RIP = 0x401234
STACK = 0x7FFC00001000
CALL = (257, 0xFFFFFF9C, 0x5AC6E8, 0x8000, 0, 1, 2)  # number, then rdi, rsi, rdx, r10, r8, r9


class Space:
    def __init__(self, frame=None):
        self.frame = frame

    def read(self, gva, size):
        if self.frame is None or gva != STACK + 48 or size != len(self.frame):
            raise ValueError("gva %#x is not mapped" % gva)
        return self.frame


def registers(ax, ip=RIP, cx=RIP, sp=STACK):
    words = [0] * 21
    words[10], words[11], words[15], words[16], words[19] = ax & (1 << 64) - 1, cx, CALL[0], ip, sp
    words[14], words[13], words[12] = 17, STACK + 0x100, STACK  # a handler's: signal, siginfo, ucontext
    return tuple(words)


def frame(ax, ip, cx=RIP):
    words = [0] * 18
    words[8], words[9], words[12], words[2], words[0], words[1] = CALL[1:]
    words[13], words[14], words[16] = ax & (1 << 64) - 1, cx, ip
    return struct.pack("<18Q", *words)


def test_a_call_that_no_signal_interrupts():
    assert signals.undone(registers(3), Space()) is None
    assert signals.undone(registers(0, ip=0x400100, cx=0), Space(frame(0, 0, 0))) is None  # execve


def test_a_call_that_is_done_again():
    assert signals.undone(registers(257, ip=RIP - 2), Space()) == (None, -512)
    assert signals.undone(registers(219, ip=RIP - 2), Space()) == (None, -516)


def test_a_handler_comes_first():
    handler = registers(0, ip=0x402000)
    assert signals.undone(handler, Space(frame(-4, RIP))) == (CALL[1:], -4)
    assert signals.undone(handler, Space(frame(5, RIP))) == (CALL[1:], 5)
    assert signals.undone(handler, Space(frame(257, RIP - 2))) == (CALL[1:], -512)


def test_what_is_no_frame_of_the_call_is_left():
    handler = registers(0, ip=0x402000)
    assert signals.undone(handler, Space()) is None
    assert signals.undone(handler, Space(frame(-4, RIP, cx=0x402000))) is None
