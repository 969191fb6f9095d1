"""The exits of IN, OUT, INS and OUTS.

Every port exits unless the I/O bitmap clears it; the port bus carries out the access. Ports of the devices present at
start have their own handlers for the usual sizes. Source: SDM Vol. 3C, "Exit Qualification for I/O Instructions",
"VM-Exit Instruction-Information Field as Used for INS and OUTS".
"""

import micropython
from micropython import const
from vmx import bind

from vmm import verdict
from vmm.fault import Fault
from vmm.memory import paging
from vmm.memory.linear import Unbacked
from vmm.vtx import events, frame, reasons
from vmm.vtx.frame import CLOCK_OFFSET, DATUM, EXIT_TSC, OUTCOME, QUALIFICATION, RAX
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.vmcs import VM_EXIT_INSTRUCTION_INFORMATION
from vmm.vtx.vmcs_bits import IO_IN
from vmm.vtx.x86 import RFLAGS_DF, RFLAGS_TF

_KEY = const(0xFFFF001F)  # of the qualification: port, string, direction, size
_KEYS_BITS = const(9)

_CHUNK = const(64)  # elements of a REP string instruction that one exit moves at most


@register
class IoQualification(Reg):
    """Exit qualification for I/O instructions."""

    SIZE = Bits(2, 0)  # bytes - 1
    IN = Bits(3)
    STRING = Bits(4)
    REP = Bits(5)
    IMMEDIATE = Bits(6)
    PORT = Bits(31, 16)


class PortIo:
    """The exits of I/O instructions to one guest's port bus."""

    def __init__(self, bus):
        self.bus = bus
        self.claims = bus.claims
        self.miss = bus.miss
        self._vm = None

    def attach(self, vm):
        """Set the VM. `outcome` lies in its vCPUs' frames."""
        self._vm = vm
        self.reset()

    def reset(self):
        """Set the outcome of all vCPUs to ADVANCE."""
        for vcpu in self._vm.vcpus:
            _set_word(vcpu, verdict.ADVANCE)

    @property
    def outcome(self):
        """The verdict of the current vCPU's I/O instruction: ADVANCE, and a device's request: reset, power off."""
        return _word(self._vm.current)

    @outcome.setter
    def outcome(self, value):
        _set_word(self._vm.current, value)

    def install(self, exits):
        """Set the handlers; each port claimed now has keys, with the device's `reader` and `writer` if it has them."""
        exits.add(reasons.IO_INSTRUCTION, bind(PortIo.exit, self), frame.WANT_DR7)
        exits.keyed(reasons.IO_INSTRUCTION, 4 * QUALIFICATION, _KEY, _KEYS_BITS)
        ranges = {}  # id of a device: the device, its ports and their offsets
        for base, count, device, offset in self.bus.ranges:
            _, places = ranges.setdefault(id(device), (device, []))
            places.extend([(base + i, offset + i) for i in range(count)])
        for device, places in ranges.values():
            self._device_keys(exits, device, places)

    def _device_keys(self, exits, device, places):
        """Add the keys of one device. places: [(port, offset)]."""
        kind = type(device)
        read, write = bind(kind.read, device), bind(kind.write, device)
        quick_read = getattr(device, "reader", None)
        quick_write = getattr(device, "writer", None)
        reads, writes, wide_reads, wide_writes = [], [], [], []
        for port, offset in places:
            for size in (1,) if self.claims[port][3] == 1 else (1, 2, 4):
                key = port << 16 | size - 1
                if size > 1 and (offset % size or not self.bus.whole(port, size)):
                    continue
                reader = quick_read(offset, size) if quick_read else None
                writer = quick_write(offset, size) if quick_write else None
                if reader:
                    handler = bind(_in8_now if size == 1 else _in32_now, reader)
                    exits.key(reasons.IO_INSTRUCTION, key | IO_IN, handler, offset)
                else:
                    (reads if size == 1 else wide_reads).extend((key | IO_IN, offset))
                if writer:
                    handler = bind(_out8_quick if size == 1 else _out32_quick, writer)
                    exits.key(reasons.IO_INSTRUCTION, key, handler, offset)
                else:
                    (writes if size == 1 else wide_writes).extend((key, offset))
        for handler, function, pairs in (
            (_in8, read, reads), (_out8, write, writes), (_in_wide, read, wide_reads), (_out_wide, write, wide_writes),
        ):  # fmt: skip
            if pairs:
                exits.key_many(reasons.IO_INSTRUCTION, bind(handler, function), pairs)

    # Fields by shift: through IoQualification an IN takes about 3,000 ticks more.
    @micropython.viper
    def exit(self, vcpu) -> int:
        """Handler of I/O instructions."""
        f = ptr32(vcpu)
        q = f[QUALIFICATION]
        if q & 0x10:
            return int(self.string(vcpu))
        port = q >> 16
        if q & 7:
            self._wide(vcpu, q)
            return f[OUTCOME]
        claim = self.claims.get(port)
        if not claim:
            if q & 8:
                self.miss(port, 0)
                f[RAX] |= 0xFF
            else:
                self.miss(port, 1)
            return 1
        if q & 8:
            f[RAX] = (f[RAX] & 0xFFFFFF00) | (int(claim[0](port - int(claim[2]), 1)) & 0xFF)
        else:
            claim[1](port - int(claim[2]), 1, f[RAX] & 0xFF)
        return f[OUTCOME]

    @micropython.viper
    def _wide(self, vcpu, q: int):
        """Handle IN and OUT of words and dwords, which the bus may split. q: the qualification."""
        f = ptr32(vcpu)
        port = q >> 16
        size = (q & 7) + 1
        value = int(f[RAX])
        claim = self.claims.get(port)
        whole = False
        if claim:
            whole = int(claim[3]) >= size and port + size <= int(claim[4])
        elif int(self.bus.absent(port, size, 0 if q & 8 else 1)):
            if q & 8:
                f[RAX] |= 0xFFFF
                if size == 4:
                    f[RAX] = 0xFFFFFFFF
                    f[RAX + 1] = 0
            return
        if q & 8 == 0:
            if whole:
                if size == 2:
                    value &= 0xFFFF
                claim[1](port - int(claim[2]), size, value)
            else:
                self.bus.write(port, size, value)
            return
        if whole:
            value = int(claim[0](port - int(claim[2]), size))
        else:
            value = int(self.bus.read(port, size))
        if size == 2:
            f[RAX] = (f[RAX] & 0xFFFF0000) | (value & 0xFFFF)
        else:
            f[RAX] = value
            f[RAX + 1] = 0

    def string(self, vcpu):
        """Handle INS and OUTS: with REP at most _CHUNK elements per exit, one if a debug trap may follow each."""
        q = IoQualification(vcpu.qualification)
        size = q.SIZE + 1
        instr_info = vcpu.read(VM_EXIT_INSTRUCTION_INFORMATION)
        width = 16 << (instr_info >> 7 & 7)
        mask = (1 << width) - 1
        index = "rdi" if q.IN else "rsi"
        segment = 0 if q.IN else instr_info >> 15 & 7
        access = paging.WRITE if q.IN else 0
        step = -size if vcpu.rflags & RFLAGS_DF else size
        count = vcpu.rcx & mask if q.REP else 1
        memory = vcpu.vm.linear.load(vcpu)
        watch = vcpu.breakpoints
        most = min(count, 1 if vcpu.rflags & RFLAGS_TF or watch.armed else _CHUNK)
        fault = None
        done = 0
        try:
            while done < most:
                offset = getattr(vcpu, index) & mask
                self._element(q, memory, memory.operand(segment, offset, size, access), size)
                watch.port(q.PORT, size)
                merge(vcpu, index, offset + step, width)
                done += 1
        except Fault as error:
            fault = error
        except Unbacked as error:
            vcpu.vm.report(vcpu, "string I/O at port %#x: %s" % (q.PORT, error))
            return verdict.STOP
        if q.REP:
            merge(vcpu, "rcx", count - done, width)
        if fault:
            return events.deliver(vcpu, fault)
        if done < count:
            events.again(vcpu)
            return self.outcome & ~verdict.ADVANCE
        return self.outcome

    def _element(self, q, memory, pieces, size):
        """Move one element between port and memory."""
        if q.IN:
            memory.put(pieces, self.bus.read(q.PORT, size))
        else:
            self.bus.write(q.PORT, size, memory.get(pieces))


def put(vcpu, size, value):
    """Write IN's result to AL, AX or EAX."""
    if size == 4:
        vcpu.rax = value
    else:
        mask = (1 << 8 * size) - 1
        vcpu.rax = vcpu.rax & ~mask | value & mask


def merge(vcpu, name, value, width):
    """Write a register with an address size of `width` bits: 16 keeps the upper bits, 32 clears them."""
    mask = (1 << width) - 1
    value &= mask
    if width == 16:
        value |= getattr(vcpu, name) & ~0xFFFF
    setattr(vcpu, name, value)


@micropython.viper
def _word(frame_) -> int:
    f = ptr32(frame_)
    return f[OUTCOME]


@micropython.viper
def _set_word(frame_, value: int):
    f = ptr32(frame_)
    f[OUTCOME] = value


# Handlers of single ports. `read` and `write` are a device's, frame.DATUM is the offset for them.
@micropython.viper
def _in8(read, vcpu) -> int:
    f = ptr32(vcpu)
    f[RAX] = (f[RAX] & 0xFFFFFF00) | (int(read(int(f[DATUM]), 1)) & 0xFF)
    return f[OUTCOME]


@micropython.viper
def _out8(write, vcpu) -> int:
    f = ptr32(vcpu)
    write(int(f[DATUM]), 1, int(f[RAX]) & 0xFF)
    return f[OUTCOME]


@micropython.viper
def _in_wide(read, vcpu) -> int:
    f = ptr32(vcpu)
    if f[QUALIFICATION] & 7 == 3:
        f[RAX] = int(read(int(f[DATUM]), 4))
        f[RAX + 1] = 0
    else:
        f[RAX] = (f[RAX] & 0xFFFF0000) | (int(read(int(f[DATUM]), 2)) & 0xFFFF)
    return f[OUTCOME]


@micropython.viper
def _out_wide(write, vcpu) -> int:
    f = ptr32(vcpu)
    size = (int(f[QUALIFICATION]) & 7) + 1
    value = int(f[RAX])
    if size == 2:
        value &= 0xFFFF
    write(int(f[DATUM]), size, value)
    return f[OUTCOME]


# `reader` is a device's fast path for one register: reader(now) -> value, or -1: call read().
@micropython.viper
def _in8_now(reader, vcpu) -> int:
    f = ptr32(vcpu)
    now = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
    now += int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32
    value = int(reader(now))
    if value < 0:
        return int(vcpu.vm.ports.exit(vcpu))
    f[RAX] = (f[RAX] & 0xFFFFFF00) | (value & 0xFF)
    return f[OUTCOME]


@micropython.viper
def _in32_now(reader, vcpu) -> int:
    f = ptr32(vcpu)
    now = int(f[EXIT_TSC]) | int(f[EXIT_TSC + 1]) << 32
    now += int(f[CLOCK_OFFSET]) | int(f[CLOCK_OFFSET + 1]) << 32
    value = int(reader(now))
    if value < 0:
        return int(vcpu.vm.ports.exit(vcpu))
    f[RAX] = value
    f[RAX + 1] = 0
    return f[OUTCOME]


# `writer` is a device's fast path for one register: writer(value) -> 0, or -1: call write().
@micropython.viper
def _out8_quick(writer, vcpu) -> int:
    f = ptr32(vcpu)
    if int(writer(int(f[RAX]) & 0xFF)) < 0:
        return int(vcpu.vm.ports.exit(vcpu))
    return f[OUTCOME]


@micropython.viper
def _out32_quick(writer, vcpu) -> int:
    f = ptr32(vcpu)
    if int(writer(int(f[RAX]))) < 0:
        return int(vcpu.vm.ports.exit(vcpu))
    return f[OUTCOME]
