"""Devices that fill pages of memory in part, or several of them: each access finds its device and its place there."""

from bench import DATA

BASE = 0xC8000000
DEVICES = f"""
class Probe:
    def __init__(self): self.log = []
    def read(self, offset, size):
        self.log.append(("r", offset, size))
        return offset + 0x1000000
    def write(self, offset, size, value): self.log.append(("w", offset, size, value))
small, long = Probe(), Probe()
vm.mmio_bus.claim({BASE + 0x10:#x}, 0x20, small)
vm.mmio_bus.claim({BASE + 0x800:#x}, 0x2400, long)  # half a page, a whole one, and most of the next
"""
READS = {  # place: (device, offset there), None: nobody
    0x14: ("small", 4),
    0x2C: ("small", 0x1C),
    0x30: None,
    0x7FC: None,
    0x800: ("long", 0),
    0xFFC: ("long", 0x7FC),
    0x1000: ("long", 0x800),
    0x1FF8: ("long", 0x17F8),
    0x2000: ("long", 0x1800),
    0x2BFC: ("long", 0x23FC),
    0x2C00: None,
}


def expected(kind):
    """What a device sees of one pass over READS."""
    return [
        ("r", at[1], 4) if kind == "r" else ("w", at[1], 4, 0x76543210)
        for at in READS.values()
        if at is not None and at[0] == "long"
    ]


def test_each_access_finds_its_device(guest):
    """Twice, so that the instructions are known the second time; the bus has all of them, too."""
    pass_ = "".join(f"mov eax, [rsi + {at:#x}]\nmov [rdi + {8 * i}], rax\n" for i, at in enumerate(READS))
    pass_ += "mov ebx, 0x76543210\n" + "".join(f"mov [rsi + {at:#x}], ebx\n" for at in READS)
    made = guest(f"mov ebp, 2\nmov rsi, {BASE:#x}\nmov edi, {DATA:#x}\nagain:\n{pass_}dec ebp\njnz again\nhlt")
    made.exec(DEVICES)
    made.halted()
    values = [0xFFFFFFFF if at is None else at[1] + 0x1000000 for at in READS.values()]
    assert made.words(len(READS)) == tuple(values)
    assert made.eval("long.log") == 2 * (expected("r") + expected("w"))
    assert made.eval("small.log") == 2 * [
        ("r", 4, 4),
        ("r", 0x1C, 4),
        ("w", 4, 4, 0x76543210),
        ("w", 0x1C, 4, 0x76543210),
    ]
    assert made.eval(f"vm.mmio_bus.unclaimed[{BASE:#x}]") == 2 * 2 * 2
    assert made.eval(f"vm.mmio_bus.unclaimed[{BASE + 0x2000:#x}]") == 2 * 2


def test_a_device_that_goes_leaves_the_others(guest):
    made = guest(f"mov rsi, {BASE:#x}\nmov eax, [rsi + 0x14]\nmov ebx, [rsi + 0x804]\nhlt")
    made.exec(DEVICES + "vm.mmio_bus.release(small)")
    made.halted()
    assert made.eval("(vcpu.rax, vcpu.rbx)") == (0xFFFFFFFF, 0x1000004)
    assert made.eval("(small.log, long.log)") == ([], [("r", 4, 4)])
