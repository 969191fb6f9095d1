"""Any instruction on device memory: the same as on RAM, and the device sees each access once, as wide as it is.

What is right is what the guest's CPU does by itself: every instruction of device_instructions.py runs on RAM and on a
device that holds the same bytes; registers, flags, FPU state and bytes must be the same afterwards.
"""

import struct

import pytest
import vtx
from bench import DATA, Bench
from device_instructions import CASES, HALT, PATTERN, R, W, r
from pcanel.assemble import assemble
from pcanel.monitor import Monitor

RAM = 0x300000  # two pages of RAM
DEVICE = 0xFED40000  # two pages of a device
AT = 0x800  # the operand lies so far into them
SNIPPETS = 0x140000
SIZE = 0x40  # of a snippet
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi") + tuple(f"r{i}" for i in range(8, 16))
RBX, RCX, RDX = 0x0123456789ABCDEF, 0x1234, 0

_DEVICE = (
    """
class Probe:
    def __init__(self):
        self.bytes = bytearray(0x2000)
        self.log = []
        self.seen = lambda: None
    def reset(self): pass
    def read(self, offset, size):
        self.log.append(("r", offset, size))
        self.seen()
        return int.from_bytes(self.bytes[offset:offset + size], "little")
    def write(self, offset, size, value):
        self.log.append(("w", offset, size))
        self.bytes[offset:offset + size] = value.to_bytes(size, "little")
probe = Probe()
vm.mmio_bus.claim(%#x, 0x2000, probe)
"""
    % DEVICE
)
_RUN = """
import struct
zeros = bytes(0x2000)
def run(rip, base, at, data, regs={}, flags=0x202):
    "One snippet; its registers (rip, rflags, 16 general), vector or 0, FPU state, the bytes and the log."
    probe.log = []
    for target in (probe.bytes, vm.memory.view(%#x, 0x2000)):
        target[:] = zeros
        target[at:at + len(data)] = data
    vm.memory.write_u64(%#x, 0)
    for name in names: setattr(vcpu, name, 0)
    vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = 0x21, %#x, %#x, %d
    vcpu.rsi, vcpu.rdi, vcpu.rsp = base + at, base + 0x1800, %#x
    for name, value in regs.items(): setattr(vcpu, name, value)
    vcpu.fpu()[:] = fpu
    vcpu.rip, vcpu.rflags = rip, flags
    vcpu.scheduled.state = "running"
    if not wait(vm, lambda: vm.state != "running", 5000) or vm.state == "stopped":
        raise RuntimeError("%%r: %%s" %% (vm, vm.messages[-1:]))
    words = [vcpu.rip, vcpu.rflags] + [getattr(vcpu, n) for n in names]
    target = probe.bytes if base == %#x else vm.memory.read(%#x, 0x2000)
    return words, vm.memory.read_u64(%#x), bytes(vcpu.fpu()[:1088]), bytes(target), probe.log
def relative(image, at):
    for delta in (0, -8): image = image.replace(struct.pack("<Q", at + delta), b"address%%d" %% -delta)
    return image
def both(rip, at, data):
    "On RAM and on the device, there twice: (registers, vector), whether FPU state and bytes are the same, the log."
    if data is None: data = fpu[:512]
    want = run(rip, %#x, at, data)
    first = run(rip, %#x, at, data)
    got = run(rip, %#x, at, data)  # by what was kept of the instruction
    if (first[:2], first[4]) != (got[:2], got[4]): raise RuntimeError("first %%r, then %%r" %% (first, got))
    images = [relative(out[3], base + at) for out, base in ((want, %#x), (got, %#x))]
    same = want[2][:8] == got[2][:8] and want[2][24:] == got[2][24:]  # all but FIP and FDP
    return want[:2], got[:2], same, images[0] == images[1], got[4]
names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi") + tuple("r%%d" %% i for i in range(8, 16))
fpu = bytes(vcpu.fpu())
""" % (RAM, DATA, RBX, RCX, RDX, 0x1F0000, DEVICE, RAM, DATA, RAM, DEVICE, DEVICE, RAM, DEVICE)

# Of single steps: counted in r13 up to r10, the last one's RIP and flags in r12 and r11.
STEPS = """
    inc r13
    mov r12, [rsp]
    mov r11, [rsp + 16]
    cmp r13, r10
    jb more
    and qword ptr [rsp + 16], 0xfffffffffffffeff
    more: iretq
"""
START = """
    mov rax, cr0
    and eax, 0xfffffff3
    or eax, 2
    mov cr0, rax
    mov rax, cr4
    or eax, 0x40600
    mov cr4, rax
    xor ecx, ecx
    xor edx, edx
    mov eax, 7
    xsetbv
    fninit
    fld1
    fldpi
    mov rax, 0x3ff8000000000000
    movq xmm0, rax
    mov rax, 0x4059000012345678
    movq xmm1, rax
    vinsertf128 ymm0, ymm0, xmm1, 1
    vinsertf128 ymm1, ymm1, xmm0, 1
    hlt
"""
OTHERS = ["bsf eax, [rsi]; nop", "bts [rsi], rax", "rep lodsb", "movsq", "rep movsw"]


@pytest.fixture(scope="module")
def bench():
    with Monitor(engine=vtx.engine(), memory=256) as monitor:
        monitor.wait_booted()
        yield Bench(monitor)


class Trials:
    """One guest that runs snippets: run(i, base, ...) from the prompt's `run`."""

    def __init__(self, bench, sources):
        self.at = {source: SNIPPETS + SIZE * i for i, source in enumerate(sources)}
        data = {HALT: b"\xf4"}
        for source, at in self.at.items():
            data[at] = assemble("\n".join(source.split("; ")) + "\nhlt", 64, at)
            assert len(data[at]) <= SIZE
        handler = f"mov dword ptr [{DATA:#x}], {{}}\nhlt"
        handlers = {vector: handler.format(vector + 0x100) for vector in (0, 6, 11, 12, 13, 14, 17)}
        handlers[1] = STEPS
        handlers[2] = "mov r14, [rsp]\nmov r15, [rsp + 16]\niretq"
        self.guest = bench.guest(START, data=data, handlers=handlers)
        self.guest.halted()
        self.guest.exec(_DEVICE + _RUN)

    def run(self, source, base, data, at=AT, regs=(), **options):
        arguments = f"{self.at[source]:#x}, {base:#x}, {at}, {data!r}, {dict(regs)!r}, **{options!r}"
        return self.guest.eval(f"[(o[0], o[1], o[3], o[4]) for o in [run({arguments})]][0]")

    def both(self, source, data, at=AT):
        return self.guest.eval(f"both({self.at[source]:#x}, {at}, {data!r})")


@pytest.fixture(scope="module")
def trials(bench):
    trials = Trials(bench, [source for source, _, _ in CASES] + OTHERS)
    yield trials
    trials.guest.destroy()


def plain(words, base):
    """Registers with addresses within the two pages made relative to them."""
    return [word - base if base <= word <= base + 0x2000 else word for word in words]


@pytest.mark.parametrize("source, data, accesses", CASES, ids=[case[0] for case in CASES])
def test_the_same_as_on_ram(trials, source, data, accesses):
    (words, vector), (device_words, device_vector), fpu, memory, log = trials.both(source, data)
    assert vector == device_vector == 0, "a fault"
    assert plain(device_words, DEVICE) == plain(words, RAM)
    assert (fpu, memory) == (True, True)
    if accesses is not None:
        assert [(kind, offset - AT, size) for kind, offset, size in log] == accesses


def register(words, name):
    return words[2 + NAMES.index(name)]


def test_an_operand_across_two_pages_of_devices(trials):
    words, vector, memory, log = trials.run("movups xmm0, [rsi]", DEVICE, PATTERN, 0xFFC)
    assert vector == 0 and log == [(R, 0xFFC, 4), (R, 0x1000, 8), (R, 0x1008, 4)]
    (_, vector), (_, device_vector), fpu, memory, log = trials.both("vmovups [rsi], ymm0", PATTERN, 0xFF1)
    assert (vector, device_vector, fpu, memory) == (0, 0, True, True)
    assert log == [
        (W, 0xFF1, 8),
        (W, 0xFF9, 4),
        (W, 0xFFD, 2),
        (W, 0xFFF, 1),
        (W, 0x1000, 8),
        (W, 0x1008, 8),
        (W, 0x1010, 1),
    ]


@pytest.mark.parametrize(
    "source, data, registers, vector, accesses",
    [
        ("div dword ptr [rsi]", bytes(8), {}, 0, r(4)),  # the instruction's own fault, after its read
        ("mov ds, [rsi]", b"\xf8\x01", {}, 13, r(2)),
        ("mov ss, [rsi]", b"\xf8\x01", {}, 13, r(2)),
        ("mov ss, [rsi]", b"\x03\x00", {}, 13, r(2)),
        # The other operand's comes before any access.
        ("movsq", PATTERN, {"rdi": 1 << 33}, 14, []),
        ("movsq", PATTERN, {"rdi": 1 << 47}, 13, []),
        ("movsq", PATTERN, {"rdi": (1 << 32) - 4, "rsi": RAM}, 14, []),  # half of it on a device, half nowhere
        ("bts [rsi], rax", PATTERN, {"rax": 1 << 37}, 14, []),
    ],
)
def test_faults(trials, source, data, registers, vector, accesses):
    """And nothing is written; the registers are those before the instruction."""
    words, got, memory, log = trials.run(source, DEVICE, data, AT, registers)
    assert got == 0x100 + vector
    assert [(kind, offset - AT, size) for kind, offset, size in log] == accesses
    assert memory == bytes(AT) + data + bytes(0x2000 - AT - len(data))


def test_interrupts_wait_for_the_end_of_the_instruction(trials):
    """An NMI that the device raises while it is read comes after the instruction, with the guest's own flags."""
    trials.guest.exec("probe.seen = vm.nmi")
    source = "bsf eax, [rsi]; nop"
    words, vector, _, log = trials.run(source, DEVICE, PATTERN)
    trials.guest.exec("probe.seen = lambda: None")
    assert vector == 0 and log == [(R, AT, 4)]
    assert register(words, "r14") == trials.at[source] + 3
    assert register(words, "r15") & 0x300 == 0x200
    assert words[1] & 0x300 == 0x200


def test_the_guest_steps_over_it(trials):
    """Its own single step comes after the instruction, once."""
    source = "bsf eax, [rsi]; nop"
    words, vector, _, log = trials.run(source, DEVICE, PATTERN, AT, {"r10": 2}, flags=0x302)
    assert vector == 0 and log == [(R, AT, 4)]
    assert register(words, "r13") == 2 and register(words, "r12") == trials.at[source] + 4
    assert register(words, "r11") & 0x300 == 0x300


@pytest.mark.parametrize("source", ["rep lodsb", "rep movsw"])
@pytest.mark.parametrize("base", [RAM, DEVICE])
def test_a_step_ends_each_turn(trials, source, base):
    words, vector, _, log = trials.run(source, base, PATTERN, AT, {"rcx": 3, "r10": 3}, flags=0x302)
    assert vector == 0 and register(words, "rcx") == 0
    assert register(words, "r13") == 3 and register(words, "r12") == words[0] - 1  # the HLT


def test_nothing_grows(trials):
    """However many pages of nothing are touched: host memory and EPT stay as they are."""
    sizes = "(len(vm.ept._tables), vm.monitor.pages.available, vm.ept.walk(%#x)[0])"
    trials.run("bsf eax, [rsi]", DEVICE, PATTERN)  # a page that stands in for a device's is taken once
    before = trials.guest.eval(sizes % DEVICE)
    for gpa in (0x40000000, 0x7FFFF000, 0x80000000, 0xC0000000, 0xFEE00000 - 0x1000):
        words, vector, _, _ = trials.run("bsf eax, [rsi]", gpa, PATTERN, 0)
        assert vector == 0 and register(words, "rax") == 0  # all ones
        assert trials.guest.eval(sizes % gpa) == before


def test_a_policy_answers_for_any_instruction(trials):
    """A watched page of RAM, too: what is read, or written instead, is the policy's value."""
    trials.guest.policy(f"'memory', gpa={RAM:#x}, length=0x2000", "return Value(0x5A5A00000000)")
    words, vector, memory, _ = trials.run("popcnt eax, [rsi]", RAM, PATTERN)
    assert vector == 0 and register(words, "rax") == 0
    words, vector, memory, _ = trials.run("bsr rax, [rsi]", RAM, PATTERN)
    assert register(words, "rax") == 46
    assert memory[AT : AT + len(PATTERN)] == PATTERN
    words, vector, memory, _ = trials.run("movups [rsi], xmm0", RAM, PATTERN)
    assert memory[AT : AT + len(PATTERN)] == struct.pack("<QQ", 0x5A5A00000000, 0) + PATTERN[16:]
    trials.guest.exec("vm.policies[0].detach()")


def test_what_no_one_knows_stops_the_guest_with_its_bytes(bench):
    guest = bench.guest("mov rax, cr4\nor eax, 0x40000\nmov cr4, rax\nmov rsi, 0xfed40000\nxsave [rsi]\nhlt")
    guest.until("vm.state == 'stopped'")
    assert "0f ae 26" in guest.eval("vm.messages[-1]") or "0fae26" in guest.eval("vm.messages[-1]")
    assert guest.eval("vm.vcpu.stepper.armed") is False
    guest.destroy()


# -- modes

NOBODY = 0xFED50000
IOAPIC = 0xFEC00000
ROUNDS = 3
# Large pages that map all of 4 GiB to itself.
TWO_LEVELS = """
    xor ecx, ecx
    next: mov eax, ecx
    shl eax, 22
    or eax, 0x83
    mov [0x180000 + ecx * 4], eax
    inc ecx
    cmp ecx, 1024
    jb next
    mov eax, 0x10
    mov cr4, eax
    mov eax, 0x180000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""
THREE_LEVELS = """
    xor ecx, ecx
    next: mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [0x181000 + ecx * 8], eax
    mov dword ptr [0x181004 + ecx * 8], 0
    inc ecx
    cmp ecx, 2048
    jb next
    xor ecx, ecx
    pdpte: mov eax, ecx
    shl eax, 12
    add eax, 0x181001
    mov [0x180000 + ecx * 8], eax
    mov dword ptr [0x180004 + ecx * 8], 0
    inc ecx
    cmp ecx, 4
    jb pdpte
    mov eax, 0x20
    mov cr4, eax
    mov eax, 0x180000
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
"""
# {0}, {1}: I/O APIC select and window; {2}: where nobody answers. Results in EBX, EDX, ESI, EDI.
ACCESSES = """
    mov dword ptr {0}, 0x10
    mov dword ptr {1}, 0x10000
    lock or dword ptr {1}, 0x21
    lock bts dword ptr {1}, 3
    setc cl
    movzx edi, cl
    mov eax, 0x10029
    mov ecx, 0x10030
    lock cmpxchg dword ptr {1}, ecx
    mov edx, 0x10055
    xchg dword ptr {1}, edx
    mov ebx, dword ptr {1}
    cmp byte ptr {1}, 0x55
    setz cl
    movzx ecx, cl
    shl ecx, 16
    or edi, ecx
    mov esi, dword ptr {2}
    lock not word ptr {2}
"""


def rounds(accesses, count="ebp", times=ROUNDS):
    return f"mov {count}, {times}\nround:\n{accesses}\ndec {count}\njnz round\nhlt"


@pytest.mark.parametrize("tables", ["", TWO_LEVELS, THREE_LEVELS], ids=["no paging", "32-bit", "PAE"])
def test_32_bit_code(bench, tables):
    places = f"[{IOAPIC:#x}]", f"[{IOAPIC + 0x10:#x}]", f"[{NOBODY:#x}]"
    guest = bench.guest(tables + rounds(ACCESSES.format(*places)), bits=32, mode="protected")
    check_accesses(guest)


def test_16_bit_code(bench):
    """With 16-bit addresses, by a segment that lies at the device."""
    accesses = ACCESSES.format("[bx]", "[bx + 0x10]", "fs:[bx]").replace("mov ebx,", "mov esi,", 1)
    accesses = accesses.replace("mov esi, dword ptr fs:[bx]", "mov eax, esi\nmov esi, dword ptr fs:[bx]")
    guest = bench.guest("xor bx, bx\n" + rounds(accesses, "bp").replace("hlt", "mov ebx, eax\nhlt"), bits=16)
    for name, base in (("ds", IOAPIC), ("fs", NOBODY)):
        guest.exec(f"vcpu.set_segment({name!r}, 0, {base:#x}, 0xffff, 0x93)")
    check_accesses(guest)


def check_accesses(guest):
    guest.halted()
    found = guest.eval("[getattr(vcpu, name) & 0xffffffff for name in ('rbx', 'rdx', 'rsi')]")
    assert found == [0x10055, 0x10030, 0xFFFFFFFF]
    assert guest.eval("vcpu.rdi & 0xff") == 0 and guest.eval("vcpu.rdi >> 16 & 1") == 1
    assert guest.eval(f"vm.unclaimed()['memory'].get({NOBODY:#x})") == 3 * ROUNDS
    guest.destroy()


def test_the_disabled_apics_page(bench):
    """Nobody answers there; once the APIC is on again, it does."""
    off = "mov ecx, 0x1b\nrdmsr\nand eax, 0xfffff7ff\nwrmsr\n"
    loop = rounds("mov dword ptr [rdi + 0x80], 0x55\nmov ebx, [rdi + 0x30]", times=20)
    guest = bench.guest(off + "mov edi, 0xfee00000\n" + loop)
    guest.halted()
    assert guest.eval("vcpu.rbx") == 0xFFFFFFFF
    assert guest.eval("vm.unclaimed()['memory']") == {0xFEE00000: 40}
    assert guest.eval("vm.lapic.read(0x80, 4)") == 0
    guest.destroy()


def test_an_operand_that_begins_in_ram(bench):
    """Half of it is RAM, the other half where nobody answers: each gets its part."""
    guest = bench.guest(
        "mov rsi, 0x3ffffe\nmov ebp, 3\nagain: mov dword ptr [rsi], 0x12345678\nmov eax, [rsi]\ndec ebp\njnz again\nhlt"
    )
    guest.halted()
    assert guest.eval("vcpu.rax") == 0xFFFF5678  # what lies behind RAM is nobody's
    assert guest.eval("vm.memory.read_u16(0x3ffffe)") == 0x5678
    guest.destroy()
