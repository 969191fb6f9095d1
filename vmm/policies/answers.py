"""What a policy's verdicts do: the value that a guest reads, and the way past an instruction.

Value answers CPUID (a tuple EAX, EBX, ECX, EDX), RDMSR, IN, VMCALL and reads of memory; for
WRMSR, OUT and writes of memory it replaces what is written. Limits: not for INS and OUTS,
and not for accesses that no instruction's operand makes.
"""

from micropython import const

from vmm import verdict
from vmm.emulation import length
from vmm.handlers import io
from vmm.policies.filters import CPUID, IO, MEMORY, RDMSR, VMCALL, WRMSR
from vmm.vtx import events
from vmm.vtx.vmcs import GUEST_DR7, GUEST_INTERRUPTIBILITY_STATE
from vmm.vtx.vmcs_bits import BLOCKING_BY_NMI, PENDING_BS

_WORD = const(0xFFFFFFFF)
_FETCH = const(4)
_OPERAND = const(0x180)  # linear address valid, and the access is to its translation
_NMI_UNBLOCKED = const(1 << 12)


def value(vcpu, event, answer, default):
    """Carry out Value(answer) for an event; returns a verdict. ValueError where it cannot be."""
    if event == CPUID:
        return _cpuid(vcpu, answer)
    if not isinstance(answer, int):
        raise ValueError("the value for %s is a number, not %r" % (event, answer))
    if event == RDMSR:
        _pair(vcpu, answer)
        return verdict.ADVANCE
    if event == WRMSR:
        return _wrmsr(vcpu, answer, default)
    if event == IO:
        return _io(vcpu, answer, default)
    if event == VMCALL:
        vcpu.rax = answer
        return verdict.ADVANCE
    if event == MEMORY:
        return _memory(vcpu, answer)
    raise ValueError("an %s has no value" % event)


def _cpuid(vcpu, answer):
    if not isinstance(answer, (tuple, list)) or len(answer) != 4:
        raise ValueError("the value for CPUID is (EAX, EBX, ECX, EDX), not %r" % (answer,))
    a, b, c, d = answer
    vcpu.rax, vcpu.rbx, vcpu.rcx, vcpu.rdx = a & _WORD, b & _WORD, c & _WORD, d & _WORD
    return verdict.ADVANCE


def _pair(vcpu, answer):
    vcpu.rax = answer & _WORD
    vcpu.rdx = answer >> 32 & _WORD


def _wrmsr(vcpu, answer, default):
    rax, rdx = vcpu.rax, vcpu.rdx
    _pair(vcpu, answer)
    try:
        return default(vcpu)
    finally:
        vcpu.rax, vcpu.rdx = rax, rdx  # WRMSR changes no register


def _io(vcpu, answer, default):
    q = io.IoQualification(vcpu.qualification)
    if q.STRING:
        raise ValueError("no value for INS and OUTS: change the guest's registers or memory")
    if q.IN:
        io.put(vcpu, q.SIZE + 1, answer & (1 << 8 * (q.SIZE + 1)) - 1)
        return verdict.ADVANCE
    rax = vcpu.rax
    vcpu.rax = answer
    try:
        return default(vcpu)
    finally:
        vcpu.rax = rax


def _memory(vcpu, answer):
    q = vcpu.qualification
    if q & _FETCH:
        raise ValueError("no value for an instruction fetch: change the guest's code or RIP")
    if vcpu.vectoring_info & events.VALID or q & _OPERAND != _OPERAND:
        raise ValueError("no value for an access by the CPU itself (a descriptor, stack or paging structure)")
    again(vcpu)
    return vcpu.vm.mmio.answer(vcpu, answer)


def again(vcpu):
    """Before the instruction runs again: what the exit interrupted has to be delivered again.

    For EPT violations and exceptions, whose frames hold the vectoring words.
    """
    if vcpu.vectoring_info & events.VALID:
        events.requeue(vcpu)
        return
    info = vcpu.intr_info if not vcpu.reason & 0xFFFF else vcpu.qualification
    if info & _NMI_UNBLOCKED:  # IRET that unblocked NMIs faulted: it will unblock them again
        state = vcpu.read(GUEST_INTERRUPTIBILITY_STATE)
        vcpu.write(GUEST_INTERRUPTIBILITY_STATE, state | BLOCKING_BY_NMI)


def skip(vcpu):
    """Past the exiting instruction; an exception, or an access, is dropped."""
    reason = vcpu.reason & 0xFFFF
    if reason == 0:
        kind = vcpu.intr_info >> 8 & 7
        if kind in (events.SOFTWARE_EXCEPTION, events.PRIVILEGED_SOFTWARE_EXCEPTION):
            return verdict.ADVANCE
        if vcpu.intr_info & 0xFF == events.DB and _trap(vcpu):
            return verdict.RESUME
    elif reason != 48:
        return verdict.ADVANCE
    else:
        vcpu.vm.stepper.reset()  # a step over another of its operands ends here
    if vcpu.vectoring_info & events.VALID:
        return verdict.RESUME  # the event whose delivery met it is dropped
    return length.skip(vcpu)


def _trap(vcpu):
    """Whether this #DB comes after its instruction: a step, or a breakpoint on data."""
    hit = vcpu.qualification
    if hit & PENDING_BS:
        return True
    dr7 = vcpu.read(GUEST_DR7)
    for i in range(4):
        if hit >> i & 1 and dr7 >> 16 + 4 * i & 3:
            return True
    return False
