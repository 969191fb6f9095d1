"""vmm/emulation/emulate.py against the CPU that runs the test, and where that cannot be, by hand."""

import pytest
import realcpu
from hypothesis import given, settings
from hypothesis import strategies as st
from realcpu import FLAGS, NAMES, assemble

from vmm.emulation.alu import STATUS, condition
from vmm.emulation.decode import Instruction
from vmm.emulation.emulate import Emulator
from vmm.memory.paging import WRITE

DF = 1 << 10
MASK = 2**64 - 1


class Model:
    """The emulator's view of a vCPU: registers in a list, memory in a bytearray."""

    def __init__(self, registers, memory, base):
        self.words = list(registers)
        self.memory = bytearray(memory)
        self.base = base
        self.rip = 0x1000
        self.bits = 64
        self.bases = [0] * 6
        self.stack_size = 8
        self.iterations = 64
        self.log = []

    def reg(self, n):
        return self.words[n]

    def set_reg(self, n, value):
        assert 0 <= value <= MASK
        self.words[n] = value

    @property
    def rflags(self):
        return self.words[FLAGS]

    @rflags.setter
    def rflags(self, value):
        self.words[FLAGS] = value

    def selector(self, n):
        return 0x1110 * (n + 1)

    def operand(self, segment, offset, size, access):
        if self.bits == 64:
            gva = offset + (self.bases[segment] if segment >= 4 else 0)
        else:
            gva = offset + self.bases[segment] & 0xFFFFFFFF
        at = gva - self.base
        assert 0 <= at <= len(self.memory) - size, hex(gva)
        self.log.append(("o", at, size, access))
        return at, size, access

    def load(self, operand):
        at, size, _ = operand
        self.log.append(("r", at, size))
        return int.from_bytes(self.memory[at : at + size], "little")

    def store(self, operand, value):
        at, size, access = operand
        assert access == WRITE and 0 <= value < 1 << 8 * size
        self.log.append(("w", at, size))
        self.memory[at : at + size] = value.to_bytes(size, "little")


def emulate(code, model, bits=64):
    model.bits = bits
    insn = Instruction().decode(code, bits)
    assert insn.length == len(code)
    emulator = Emulator(model)
    rounds = 0
    while not emulator.execute(insn):
        rounds += 1
        assert rounds < 100
    return insn


SIZES = {"byte": ("al", "dl", "ah", "r9b"), "word": ("ax", "dx", "r9w"), "dword": ("eax", "edx", "r9d"),
         "qword": ("rax", "rdx", "r9")}  # fmt: skip

CONDITIONS = ["o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g"]


def forms():
    """Assembly texts with the memory operand at [rbx], or at [rsi] and [rdi]."""
    for size, registers in SIZES.items():
        mem = size + " ptr [rbx]"
        for name in ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"):
            for register in registers:
                yield "%s %s, %s" % (name, mem, register)
                yield "%s %s, %s" % (name, register, mem)
            yield "%s %s, -3" % (name, mem)
            yield "%s %s, 0x5a" % (name, mem)
        for register in registers:
            yield "mov %s, %s" % (mem, register)
            yield "mov %s, %s" % (register, mem)
            yield "test %s, %s" % (mem, register)
            yield "xchg %s, %s" % (mem, register)
            yield "cmpxchg %s, %s" % (mem, register)
            yield "xadd %s, %s" % (mem, register)
        for name in ("not", "neg", "inc", "dec"):
            yield "%s %s" % (name, mem)
        yield "mov %s, -2" % mem
        yield "test %s, 0x71" % mem
        for prefix in ("", "rep "):
            for name in ("movs", "stos", "lods"):
                yield prefix + name + size[0]
        for prefix in ("", "repe ", "repne "):
            yield prefix + "cmps" + size[0]
            yield prefix + "scas" + size[0]
        if size != "byte":
            for name in ("bt", "bts", "btr", "btc"):
                yield "%s %s, 0x2b" % (name, mem)
                for register in registers[1:]:
                    yield "%s %s, %s" % (name, mem, register)
            for register in registers:
                yield "movzx %s, byte ptr [rbx]" % register
                yield "movsx %s, byte ptr [rbx]" % register
                yield "movbe %s, %s" % (register, mem)
                yield "movbe %s, %s" % (mem, register)
                for condition_name in ("o", "b", "e", "be", "s", "p", "l", "le", "ne", "g"):
                    yield "cmov%s %s, %s" % (condition_name, register, mem)
        if size in ("dword", "qword"):
            for register in registers:
                yield "movzx %s, word ptr [rbx]" % register
                yield "movsx %s, word ptr [rbx]" % register
                yield "movnti %s, %s" % (mem, register)
    yield "movsxd rdx, dword ptr [rbx]"
    for condition_name in CONDITIONS:
        yield "set%s byte ptr [rbx]" % condition_name


FORMS = list(forms())
# Keystone takes these two for the SSE2 instructions.
CODES = {"movsd": b"\xa5", "cmpsd": b"\xa7", "rep movsd": b"\xf3\xa5", "repe cmpsd": b"\xf3\xa7",
         "repne cmpsd": b"\xf2\xa7"}  # fmt: skip
EDGES = st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 2**31 - 1, 2**31, 2**32 - 1, 2**63, MASK])
WORD = EDGES | st.integers(0, MASK)


def code_of(text):
    if text not in CODES:
        CODES[text] = assemble(text)
    return CODES[text]


def has_movbe():
    try:
        with open("/proc/cpuinfo") as info:
            return " movbe " in info.read()
    except OSError:
        return False


@pytest.mark.skipif(not realcpu.AVAILABLE, reason="needs an x86-64 Linux host")
@pytest.mark.parametrize("half", range(8))
def test_against_the_cpu(half):
    cpu = realcpu.Cpu()
    texts = [t for t in FORMS[half::8] if not t.startswith("movbe") or has_movbe()]

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.lists(WORD, min_size=5, max_size=5), st.integers(0, STATUS), st.booleans(),
           st.integers(-500, 500), st.integers(0, 100), st.integers(0, 255), st.booleans())  # fmt: skip
    def check(words, flags, down, offset, count, fill, same):
        for text in texts:
            registers = [0] * 17
            rax, rdx, r9, value, value2 = words
            registers[0] = value if same else rax
            registers[2] = offset & MASK if text[:2] == "bt" else rdx
            registers[9] = offset & MASK if text[:2] == "bt" else r9
            registers[3] = cpu.base + 2048
            registers[1] = count
            registers[6], registers[7] = cpu.base + 2040, cpu.base + 2064
            registers[FLAGS] = 0x202 | flags & STATUS | (DF if down else 0)
            cpu.memory[:] = bytes([fill]) * 4096
            cpu.memory[2040:2048] = value2.to_bytes(8, "little")
            cpu.memory[2048:2056] = cpu.memory[2064:2072] = value.to_bytes(8, "little")
            model = Model(registers, cpu.memory[:], cpu.base)
            cpu.run(code_of(text), registers)
            emulate(code_of(text), model)
            assert bytes(model.memory) == cpu.memory[:], text
            for n in range(16):
                assert model.words[n] == registers[n], (text, NAMES[n])
            # TF and RF are the debugger's; all else must agree.
            assert (model.words[FLAGS] ^ registers[FLAGS]) & ~0x10100 == 0, (text, hex(registers[FLAGS]))

    check()


def run(text, bits=64, **changes):
    """Emulates `text` with memory at 0x10000 and rbx there; returns the model."""
    words = [0x1111 * n for n in range(16)] + [2]
    words[3] = 0x10000
    memory = bytes(range(256))
    model = Model(words, memory, changes.pop("base", 0x10000))
    for name, value in changes.items():
        if name in NAMES:
            model.words[NAMES.index(name)] = value
        else:
            setattr(model, name, value)
    emulate(assemble(text, bits), model, bits)
    return model


def test_push_and_pop():
    model = run("push qword ptr [rbx + 8]", rsp=0x10080)
    assert model.reg(4) == 0x10078 and model.memory[0x78:0x80] == bytes(range(8, 16))
    model = run("pop qword ptr [rsp + 8]", rsp=0x10080)
    assert model.reg(4) == 0x10088 and model.memory[0x90:0x98] == bytes(range(0x80, 0x88))
    model = run("push word ptr [rbx]", rsp=0x10080)
    assert model.reg(4) == 0x1007E and model.memory[0x7E:0x80] == b"\0\1"
    model = run("push dword ptr [ebx]", 32, rsp=0x80, stack_size=4, bases=[0, 0, 0x10000, 0, 0, 0])
    assert model.reg(4) == 0x7C and model.memory[0x7C:0x80] == bytes(range(4))
    model = run("pop word ptr [bx]", 16, rsp=0xFFFF0080, rbx=2, stack_size=2, base=0x20000,
                bases=[0, 0, 0x20000, 0x20000, 0, 0])  # fmt: skip
    assert model.reg(4) == 0xFFFF0082 and model.memory[2:4] == b"\x80\x81"


def test_addresses():
    assert run("mov eax, [rip + 4]", rip=0x10000).words[0] == 0x0D0C0B0A
    assert run("mov eax, fs:[8]", bases=[9, 9, 9, 9, 0x10000, 9]).words[0] == 0x0B0A0908
    assert run("mov eax, [ebx]", rbx=0xFFFFFFFF00010000).words[0] == 0x03020100
    assert run("mov al, [rbx + r9*4 - 4]", r9=0x10).words[0] == 0x3C
    assert run("mov ax, [bx + si]", 16, rbx=0xFFFF, rsi=5, bases=[0, 0, 0, 0x10000, 0, 0]).words[0] == 0x0504
    model = run("mov al, [ebx + 0x20]", 32, rbx=0xFFFFFFF0, base=0x5000, bases=[0, 0, 0, 0x5000, 0, 0])
    assert model.words[0] == 16
    assert run("movabs eax, [0x10004]").words[0] == 0x07060504
    assert run("movabs [0x10004], ax", rax=0xABCD).memory[4:7] == b"\xcd\xab\x06"
    assert run("mov word ptr [rbx], gs").memory[:3] == b"\x60\x66\x02"


def test_repeat_stops_for_interrupts_and_goes_on():
    model = Model([0] * 17, bytes(1024), 0)
    model.words[1], model.words[0] = 200, 0x55
    insn = Instruction().decode(assemble("rep stosb"), 64)
    emulator = Emulator(model)
    assert emulator.execute(insn) is False and 0 < model.words[1] < 200
    while not emulator.execute(insn):
        pass
    assert model.words[1] == 0 and bytes(model.memory) == b"\x55" * 200 + bytes(824)
    model.log.clear()
    assert emulator.execute(insn) and not model.log


def test_fault_leaves_registers():
    model = Model([0] * 17, bytes(64), 0)
    model.words[3] = 62
    for text in ("add dword ptr [rbx], 1", "pop qword ptr [rbx]", "xadd [rbx], eax", "movsq"):
        model.words[6] = 62
        before = list(model.words)
        with pytest.raises(AssertionError):
            Emulator(model).execute(Instruction().decode(assemble(text), 64))
        assert model.words == before


def test_a_step_ends_each_turn():
    model = Model([0] * 17, bytes(64), 0)
    model.iterations, model.words[1] = 1, 3
    insn = Instruction().decode(assemble("rep stosb"), 64)
    assert [Emulator(model).execute(insn) for _ in range(3)] == [False, False, True]
    assert model.words[1] == 0


@pytest.mark.parametrize("text", FORMS)
def test_all_operands_are_checked_before_the_first_access(text):
    """And those that are written as such, so that nothing has been read of a device when the write faults."""
    if text.startswith("rep"):
        return
    model = Model([8] * 17, bytes(4096), 0)
    model.words[3] = model.words[6] = model.words[7] = 2048
    emulate(code_of(text), model)
    kinds = [entry[0] for entry in model.log]
    assert kinds == sorted(kinds, key="orw".index)
    written = {entry[1:] for entry in model.log if entry[0] == "w"}
    assert written <= {entry[1:3] for entry in model.log if entry[0] == "o" and entry[3] == WRITE}


@given(st.integers(0, 15), st.integers(0, STATUS))
def test_conditions(code, flags):
    cf, pf, zf, sf, of = (flags >> n & 1 for n in (0, 2, 6, 7, 11))
    table = [of, cf, zf, cf | zf, sf, pf, sf ^ of, zf | (sf ^ of)]
    assert condition(code, flags) == bool(table[code >> 1] ^ (code & 1))
