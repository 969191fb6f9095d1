"""RDMSR and WRMSR: default-deny. An MSR that is not claimed is #GP(0), and counted.

The processor's own MSRs are in cpu_msrs.py, the local APIC's in apic_msrs.py, those of speculation control in
spec_msrs.py.
Source: SDM Vol. 2, "RDMSR", "WRMSR"; Vol. 3A, "x2APIC Register Address Space".
"""

import micropython
from micropython import const
from vmx import bind

from vmm import tally
from vmm.handlers.cpu_msrs import CpuMsrs
from vmm.vtx import events, reasons
from vmm.vtx.frame import DATUM, RAX, RCX, RDX, STORED, STORED_MSRS
from vmm.vtx.x86 import IA32_X2APIC_ICR, X2APIC_MSRS

_PLAIN = "any value"
_WRITTEN_BITS = const(4)  # size of WRMSR's key table, which has few entries (Keys)


class Msrs:
    """The MSRs of one guest. Each vCPU has its own values.

    readers {index: f(vcpu, index) -> value}, writers {index: f(vcpu, index, value) -> False for #GP}.
    x2apic: those of the local APIC in x2APIC mode, as (low(vcpu, index) or -1 for #GP, high(vcpu, index),
    write(vcpu, index, low, high) -> True, or False for #GP): in halves, since their exits must not allocate big ints.
    halves {index: f(vcpu, low, high) -> 1, or 0 for #GP}: called by WRMSR in place of the writer.
    unclaimed {(index, write): count}.
    """

    def __init__(self, host_rdmsr, live, width):
        """host_rdmsr(index): the host's value. live: MSRs that are in the CPU while a vCPU is loaded. width: bits of a
        gpa."""
        self.readers = {}
        self.writers = {}
        self.x2apic = None
        self.halves = {}
        self.unclaimed = {}
        self._at = {}  # index: word of the frame
        self._initial = {}
        self._getter, self._putter = self.get, self.put  # one object each, not one for each MSR
        self._cpu = CpuMsrs(self, host_rdmsr, live, width)

    def open(self, bitmap):
        """Let a vCPU access MSRs in the CPU and in the VMCS without exits. bitmap: vmm.vtx.msr_bitmap.Bitmap."""
        self._cpu.open(bitmap)

    def add(self, index, reader, writer):
        """Claim an MSR. reader, writer: None if the access is #GP."""
        if index in self.readers or index in self.writers:
            raise ValueError("MSR %#x is claimed already" % index)
        if reader:
            self.readers[index] = reader
        if writer:
            self.writers[index] = writer

    def store(self, index, initial=0, writer=_PLAIN):
        """Claim an MSR whose value lies in the frame, for a fast RDMSR.

        writer: as for add(); it stores the value by put(). The default stores any value.
        """
        if len(self._at) == STORED_MSRS:
            raise ValueError("more than %d stored MSRs" % STORED_MSRS)
        self._at[index] = STORED + 2 * len(self._at)
        self._initial[index] = initial
        self.add(index, self._getter, self._putter if writer is _PLAIN else writer)

    def word(self, index):
        """Return the frame word of a stored MSR's low half."""
        return self._at[index]

    def get(self, vcpu, index):
        """Return the value of a stored MSR."""
        return _stored(vcpu, self._at[index])

    def put(self, vcpu, index, value):
        """Set the value of a stored MSR."""
        _store(vcpu, self._at[index], value)

    def reset(self, vcpu):
        """Set a vCPU's stored MSRs to their values after power-up."""
        for index, value in self._initial.items():
            self.put(vcpu, index, value)

    def read(self, vcpu, index):
        """Return a vCPU's value; False for an x2APIC register where RDMSR is #GP. KeyError for an unclaimed MSR."""
        if index >> 6 == X2APIC_MSRS >> 6:
            low, high, _ = self.x2apic
            value = low(vcpu, index)
            return False if value < 0 else high(vcpu, index) << 32 | value
        return self.readers[index](vcpu, index)

    def write(self, vcpu, index, value):
        """Write as the vCPU would; False where WRMSR is #GP. KeyError as for read."""
        if index >> 6 == X2APIC_MSRS >> 6:
            return self.x2apic[2](vcpu, index, value & 0xFFFFFFFF, value >> 32)
        return self.writers[index](vcpu, index, value) is not False

    # -- handlers

    def install(self, exits):
        """Set the handlers; reads of stored MSRs have keys."""
        exits.add(reasons.RDMSR, bind(Msrs.read_exit, self))
        exits.add(reasons.WRMSR, bind(Msrs.write_exit, self))
        exits.keyed(reasons.RDMSR, 4 * RCX, 0xFFFFFFFF)
        exits.keyed(reasons.WRMSR, 4 * RCX, 0xFFFFFFFF, _WRITTEN_BITS)
        pairs = []
        for index, at in self._at.items():
            pairs.extend((index, at))
        exits.key_many(reasons.RDMSR, _read_words, pairs)
        self._cpu.install(exits)

    @micropython.viper
    def read_exit(self, vcpu) -> int:
        """Handler of RDMSR without a key: EDX:EAX from the MSR in ECX, or #GP(0)."""
        f = ptr32(vcpu)
        index = int(f[RCX])
        if index >> 6 == X2APIC_MSRS >> 6:
            pair = self.x2apic
            low = int(pair[0](vcpu, index))
            if low < 0:
                return int(events.general_protection(vcpu))
            high = 0
            if index == IA32_X2APIC_ICR:  # the only one of 64 bits
                high = int(pair[1](vcpu, index))
        else:
            reader = self.readers.get(index)
            if not reader:
                return int(self._refuse(vcpu, index, False))
            low = int(reader(vcpu, index))
            high = int(uint(low) >> 32)
        f[RAX] = low
        f[RAX + 1] = 0
        f[RDX] = high
        f[RDX + 1] = 0
        return 1

    @micropython.viper
    def write_exit(self, vcpu) -> int:
        """Handler of WRMSR without a key: the MSR in ECX from EDX:EAX, or #GP(0)."""
        f = ptr32(vcpu)
        index = int(f[RCX])
        if index >> 6 == X2APIC_MSRS >> 6:
            pair = self.x2apic
            done = bool(pair[2](vcpu, index, int(f[RAX]), int(f[RDX])))
        else:
            halves = self.halves.get(index)
            if halves:
                done = bool(int(halves(vcpu, int(f[RAX]), int(f[RDX]))))
            else:
                done = bool(self._write_whole(vcpu, index))
        if done:
            return 1
        return int(events.general_protection(vcpu))

    def _write_whole(self, vcpu, index):
        """Call the writer with 64 bits, which may be a big int; False for #GP."""
        writer = self.writers.get(index)
        if writer is None:
            self._count(index, True)
            return False
        return writer(vcpu, index, (vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF) is not False

    def _refuse(self, vcpu, index, write):
        self._count(index, write)
        return events.general_protection(vcpu)

    def _count(self, index, write):
        tally.count(self.unclaimed, (index, write))


@micropython.viper
def _stored(vcpu, at: int) -> uint:
    f = ptr32(vcpu)
    return uint(f[at]) | uint(f[at + 1]) << uint(32)


@micropython.viper
def _store(vcpu, at: int, value: int):
    f = ptr32(vcpu)
    f[at] = value
    f[at + 1] = value >> 32


@micropython.viper
def _read_words(vcpu) -> int:
    """Handler of RDMSR of a stored MSR: frame.DATUM is its first word."""
    f = ptr32(vcpu)
    at = int(f[DATUM])
    f[RAX] = f[at]
    f[RDX] = f[at + 1]
    f[RAX + 1] = 0
    f[RDX + 1] = 0
    return 1
