"""Executes a decoded instruction, for accesses to devices' registers in memory.

The vCPU is reached through an object `cpu`:

    reg(n), set_reg(n, value)   general register 0-15, 64 bits, unsigned
    rip, rflags                 read; rflags is written too
    selector(n)                 in the order of vmm/emulation/decode.py
    stack_size                  address size of the stack: 2, 4 or 8 bytes
    iterations                  of a REP instruction before the guest may take interrupts
    operand(segment, offset, size, access)  an operand, checked as the CPU does, with all its pages;
                                access: READ, or WRITE also where it is read before
    load(operand), store(operand, value)    its value: RAM or device

What operand() raises (a page fault, say) passes through, with registers and memory as they
were before the instruction, or before the current iteration of a REP one: all its operands
are translated before the first access to a device. Limits: locked accesses are not atomic
against other CPUs. Source: SDM Vol. 2, each instruction.
"""

from micropython import const

from vmm.emulation import opcodes as o
from vmm.emulation.alu import CF, DF, STATUS, ZF, Alu, condition
from vmm.emulation.decode import ES, NONE, RIP, SS
from vmm.memory.paging import WRITE
from vmm.vtx.x86 import MASK64

_RAX = const(0)
_RCX = const(1)
RSP = const(4)
_RSI = const(6)
_RDI = const(7)
_REPNE = const(0xF2)
_READ = const(0)


class Emulator:
    """Executes decoded instructions on one vCPU; execute() updates everything but RIP."""

    def __init__(self, cpu):
        self._cpu = cpu
        self._alu = Alu()

    def execute(self, insn):
        """Executes `insn`. True when complete: RIP moves on by insn.length.

        False when a REP instruction has iterations left: RIP stays.
        """
        if insn.form == o.STRING:
            return self._string(insn)
        op = insn.op
        form = insn.form
        cpu = self._cpu
        if op == o.PUSH or op == o.POP:
            self._stack(insn)
        elif form == o.A_O:
            self.put(_RAX, insn.size, cpu.load(self._at(insn, insn.segment, insn.disp, insn.size, _READ)))
        elif form == o.O_A:
            cpu.store(self._at(insn, insn.segment, insn.disp, insn.size, WRITE), self.get(_RAX, insn.size))
        elif form == o.G_E or form == o.G_EB or form == o.G_EW or form == o.G_ED:
            self._to_register(insn)
        elif o.BT <= op <= o.BTC:
            self._bit(insn)
        else:
            self._to_memory(insn)
        return True

    # Registers and addresses

    def get(self, n, size, rex=1):
        """Register `n` as an operand of `size` bytes; without REX byte registers 4-7 are AH-BH."""
        if size == 1 and not rex and n & 4 and n < 8:
            return self._cpu.reg(n & 3) >> 8 & 0xFF
        value = self._cpu.reg(n)
        return value if size == 8 else value & ((1 << 8 * size) - 1)

    def put(self, n, size, value, rex=1):
        """Writes an operand: 8 and 16 bits leave the rest, 32 bits clear the upper half."""
        value = _wrap(value, size)
        if size < 4:
            shift = 0
            if size == 1 and not rex and n & 4 and n < 8:
                n &= 3
                shift = 8
            mask = ((1 << 8 * size) - 1) << shift
            value = self._cpu.reg(n) & ~mask & MASK64 | value << shift
        self._cpu.set_reg(n, value)

    def _at(self, insn, segment, offset, size, access):
        return self._cpu.operand(segment, _wrap(offset, insn.address_size), size, access)

    def _operand(self, insn, access, bias=0):
        """The memory operand that ModR/M names, `bias` bytes further."""
        return self._at(insn, insn.segment, self.offset(insn) + bias, insn.mem_size, access)

    def offset(self, insn):
        """The offset of that operand in its segment, not yet within the address size."""
        cpu = self._cpu
        offset = insn.disp
        if insn.base == RIP:
            offset += cpu.rip + insn.length
        elif insn.base != NONE:
            offset += cpu.reg(insn.base)
        if insn.index != NONE:
            offset += cpu.reg(insn.index) * insn.scale
        return offset

    def _set_status(self, mask=STATUS):
        cpu = self._cpu
        cpu.rflags = cpu.rflags & ~mask | self._alu.flags & mask

    # Operand forms

    def _to_register(self, insn):
        value = self._cpu.load(self._operand(insn, _READ))
        op = insn.op
        size = insn.size
        if op == o.MOVSX:
            bits = 8 * insn.mem_size
            if value >> (bits - 1):
                value -= 1 << bits
        elif op == o.MOVBE:
            value = _swap(value, size)
        elif op == o.CMOV:
            if not condition(insn.cond, self._cpu.rflags):
                value = self.get(insn.reg, size)
        elif op <= o.CMP:
            value = self._binary(op, self.get(insn.reg, size, insn.rex), value, size)
            self._set_status()
            if op == o.CMP:
                return
        self.put(insn.reg, size, value, insn.rex)

    def _to_memory(self, insn):
        """Memory is the destination; the source is a register, an immediate or nothing."""
        cpu = self._cpu
        op = insn.op
        size = insn.size
        operand = self._operand(insn, _READ if op == o.CMP or op == o.TEST else WRITE)
        if op == o.SETCC:
            cpu.store(operand, 1 if condition(insn.cond, cpu.rflags) else 0)
            return
        if insn.form == o.E_S:
            cpu.store(operand, cpu.selector(insn.reg))
            return
        if insn.form == o.E_G:
            source = self.get(insn.reg, size, insn.rex)
        else:
            source = _wrap(insn.imm, size)
        if op == o.MOV:
            cpu.store(operand, source)
        elif op == o.MOVBE:
            cpu.store(operand, _swap(source, size))
        else:
            self._modify(insn, operand, cpu.load(operand), source)

    def _modify(self, insn, operand, old, source):
        cpu = self._cpu
        op = insn.op
        size = insn.size
        if op == o.XCHG:
            cpu.store(operand, source)
            self.put(insn.reg, size, old, insn.rex)
            return
        if op == o.CMPXCHG:
            accumulator = self.get(_RAX, size)
            self._alu.sub(accumulator, old, 0, size)
            equal = accumulator == old
            cpu.store(operand, source if equal else old)
            if not equal:
                self.put(_RAX, size, old)
            self._set_status()
            return
        if op == o.NOT:
            cpu.store(operand, old ^ ((1 << 8 * size) - 1))
            return
        if op == o.CMP or op == o.TEST:
            self._binary(op, old, source, size)
        elif op == o.XADD:
            cpu.store(operand, self._alu.add(old, source, 0, size))
            self.put(insn.reg, size, old, insn.rex)
        elif op <= o.XOR:
            cpu.store(operand, self._binary(op, old, source, size))
        elif op == o.NEG:
            cpu.store(operand, self._alu.sub(0, old, 0, size))
        else:
            cpu.store(operand, self._alu.step(old, 1 if op == o.INC else -1, size, cpu.rflags))
        self._set_status()

    def _binary(self, op, a, b, size):
        alu = self._alu
        carry = self._cpu.rflags & CF
        if op == o.ADD or op == o.ADC:
            return alu.add(a, b, carry if op == o.ADC else 0, size)
        if op == o.AND or op == o.TEST:
            return alu.logic(a & b, size)
        if op == o.OR:
            return alu.logic(a | b, size)
        if op == o.XOR:
            return alu.logic(a ^ b, size)
        return alu.sub(a, b, carry if op == o.SBB else 0, size)

    def _bit(self, insn):
        """BT, BTS, BTR, BTC: a register's bit offset reaches beyond the operand."""
        cpu = self._cpu
        size = insn.size
        bits = 8 * size
        offset = insn.imm & (bits - 1)
        bias = 0
        if insn.form == o.E_G:
            offset = self.get(insn.reg, size)
            if offset >> (bits - 1):
                offset -= 1 << bits
            bias = offset // bits * size
            offset &= bits - 1
        operand = self._operand(insn, _READ if insn.op == o.BT else WRITE, bias)
        old = cpu.load(operand)
        mask = 1 << offset
        if insn.op == o.BTS:
            cpu.store(operand, old | mask)
        elif insn.op == o.BTR:
            cpu.store(operand, old & ~mask)
        elif insn.op == o.BTC:
            cpu.store(operand, old ^ mask)
        self._alu.flags = CF if old & mask else 0
        self._set_status(CF)

    def _stack(self, insn):
        """PUSH and POP of a memory operand."""
        cpu = self._cpu
        size = insn.size
        width = cpu.stack_size
        mask = (1 << 8 * width) - 1
        rsp = cpu.reg(RSP) & mask
        if insn.op == o.PUSH:
            source = self._operand(insn, _READ)
            rsp = (rsp - size) & mask
            target = cpu.operand(SS, rsp, size, WRITE)
        else:
            source = cpu.operand(SS, rsp, size, _READ)
            rsp = (rsp + size) & mask
            # An address by rSP counts with its new value.
            target = self._operand(insn, WRITE, size if insn.base == RSP else 0)
        cpu.store(target, cpu.load(source))
        self.put(RSP, width, rsp)

    # String instructions

    def _string(self, insn):
        if not insn.rep:
            self._string_step(insn)
            return True
        width = insn.address_size
        compares = insn.op == o.CMPS or insn.op == o.SCAS
        for _ in range(self._cpu.iterations):
            count = self.get(_RCX, width)
            if count == 0:
                return True
            self._string_step(insn)
            self.put(_RCX, width, count - 1)
            if compares and bool(self._cpu.rflags & ZF) == (insn.rep == _REPNE):
                return True
        return self.get(_RCX, width) == 0

    def _string_step(self, insn):
        cpu = self._cpu
        op = insn.op
        size = insn.size
        width = insn.address_size
        rsi = self.get(_RSI, width)
        rdi = self.get(_RDI, width)
        source = target = None
        if op != o.STOS and op != o.SCAS:
            source = self._at(insn, insn.segment, rsi, size, _READ)
        if op != o.LODS:
            target = self._at(insn, ES, rdi, size, WRITE if op == o.MOVS or op == o.STOS else _READ)
        if op == o.MOVS:
            cpu.store(target, cpu.load(source))
        elif op == o.STOS:
            cpu.store(target, self.get(_RAX, size))
        elif op == o.LODS:
            self.put(_RAX, size, cpu.load(source))
        else:
            a = cpu.load(source) if op == o.CMPS else self.get(_RAX, size)
            self._alu.sub(a, cpu.load(target), 0, size)
            self._set_status()
        step = -size if cpu.rflags & DF else size
        if op != o.STOS and op != o.SCAS:
            self.put(_RSI, width, rsi + step)
        if op != o.LODS:
            self.put(_RDI, width, rdi + step)


def _wrap(value, size):
    """`value` modulo 2**(8 * size); allocates nothing where the result is small."""
    if size < 8:
        return value & ((1 << 8 * size) - 1)
    return value if 0 <= value and not value >> 62 else value & MASK64


def _swap(value, size):
    """`value` with its bytes reversed."""
    result = 0
    for _ in range(size):
        result = result << 8 | value & 0xFF
        value >>= 8
    return result
