"""An exit's reason and qualification in words, for records of exits (vmm/vtx/recording.py).

It imports on CPython. Source: SDM Vol. 3C, "Basic VM-Exit Information"; the reasons' keys are vmm/vtx/keys.py's.
"""

from micropython import const

from vmm.debug.names import EXCEPTIONS
from vmm.fault import PF
from vmm.loaders.state import GPRS
from vmm.vtx import reasons, x86
from vmm.vtx import vmcs_bits as b
from vmm.vtx.recording import UNKNOWN_VERDICT
from vmm.vtx.x86 import MASK32

_SWITCHES = ("CALL", "IRET", "JMP", "a task gate")
_APIC_ACCESSES = ("read", "write", "fetch", "event delivery")
# The bits of vmm/verdict.py, which does not import on the host.
_VERDICTS = (
    (2, "yield"), (4, "wait"), (8, "stop"), (16, "pause"), (32, "reset"), (64, "power off"), (128, "triple fault"),
    (256, "host interrupt"), (512, "spin"),
)  # fmt: skip

_REP = const(1 << 5)
_CLTS = const(2)
_LMSW = const(3)


def _msr_names():
    """{number: name} of the MSRs that vmm.vtx.x86 names."""
    return {getattr(x86, name): name for name in dir(x86) if name.startswith("IA32_")}


def msr(number):
    """An MSR's number, with its name where the monitor knows it."""
    name = _msr_names().get(number)
    return "%#x %s" % (number, name) if name else "%#x" % number


def port(qualification):
    """The access of an I/O instruction: "out 0x3f8 1"; 1, 2 or 4 bytes."""
    name = "in" if qualification & b.IO_IN else "out"
    if qualification & b.IO_STRING:
        name += "s"
    return "%s %#x %d" % (name, qualification >> b.IO_PORT_SHIFT & 0xFFFF, (qualification & b.IO_SIZE) + 1)


def _io(r):
    size = (r.qualification & b.IO_SIZE) + 1
    text = ("rep " if r.qualification & _REP else "") + port(r.qualification)
    if r.qualification & (b.IO_IN | b.IO_STRING):
        return text
    return "%s = %#x" % (text, r.rax & (1 << 8 * size) - 1)


def _control_register(r):
    number, kind = r.qualification & b.CR_NUMBER, (r.qualification & b.CR_TYPE) >> 4
    gpr = GPRS[(r.qualification & b.CR_GPR) >> 8]
    if kind == _CLTS:
        return "clts"
    if kind == _LMSW:
        return "lmsw %#x" % (r.qualification >> 16 & 0xFFFF)
    return "mov %s, cr%d" % (gpr, number) if kind else "mov cr%d, %s" % (number, gpr)


def _debug_register(r):
    gpr = GPRS[(r.qualification & b.CR_GPR) >> 8]
    number = r.qualification & 7
    return "mov %s, dr%d" % (gpr, number) if r.qualification & 1 << 4 else "mov dr%d, %s" % (number, gpr)


def _violation(r):
    q = r.qualification
    kinds = ((b.EPT_READ, "read"), (b.EPT_WRITE, "write"), (b.EPT_FETCH, "fetch"))
    text = "%s of gpa %#x" % (" and ".join([name for bit, name in kinds if q & bit]), r.gpa)
    if q & b.EPT_LINEAR_VALID and not q & b.EPT_TRANSLATED:
        text += " by a page walk"
    return text


def _exception(r):
    vector = r.intr_info & 0xFF
    text = EXCEPTIONS.get(vector, "vector %d" % vector)
    return "%s at %#x" % (text, r.qualification) if vector == PF else text


def _task_switch(r):
    return "to %#x by %s" % (r.qualification & 0xFFFF, _SWITCHES[r.qualification >> 30 & 3])


def _apic_access(r):
    kind = r.qualification >> 12 & 15
    return "%s of offset %#x" % (_APIC_ACCESSES[kind & 3], r.qualification & 0xFFF)


_DETAILS = {
    reasons.EXCEPTION_OR_NMI: _exception,
    reasons.TASK_SWITCH: _task_switch,
    reasons.CPUID: lambda r: "leaf %#x, subleaf %#x" % (r.rax & MASK32, r.rcx),
    reasons.INVLPG: lambda r: "gva %#x" % r.qualification,
    reasons.RDPMC: lambda r: "counter %#x" % r.rcx,
    reasons.VMCALL: lambda r: "number %#x" % (r.rax & MASK32),
    reasons.CONTROL_REGISTER_ACCESS: _control_register,
    reasons.MOV_DR: _debug_register,
    reasons.IO_INSTRUCTION: _io,
    reasons.RDMSR: lambda r: msr(r.rcx),
    reasons.WRMSR: lambda r: "%s = %#x" % (msr(r.rcx), r.rdx << 32 | r.rax & MASK32),
    reasons.APIC_ACCESS: _apic_access,
    reasons.VIRTUALIZED_EOI: lambda r: "vector %d" % (r.qualification & 0xFF),
    reasons.EPT_VIOLATION: _violation,
    reasons.EPT_MISCONFIGURATION: lambda r: "gpa %#x" % r.gpa,
    reasons.XSETBV: lambda r: "xcr%d = %#x" % (r.rcx, r.rdx << 32 | r.rax & MASK32),
    reasons.APIC_WRITE: lambda r: "offset %#x" % (r.qualification & 0xFFF),
}


def detail(record):
    """The details of a record beyond its reason; "" where there are none."""
    found = _DETAILS.get(record.number)
    return found(record) if found else ""


_KEYS = {
    reasons.CPUID: lambda key: "leaf %#x" % key,
    reasons.RDMSR: msr,
    reasons.WRMSR: msr,
    reasons.IO_INSTRUCTION: port,
    reasons.VMCALL: lambda key: "number %#x" % key,
    reasons.EPT_VIOLATION: lambda key: "gpa %#x" % key,
}


def key(reason, value):
    """A key of a reason (Exits.keyed) in words."""
    found = _KEYS.get(reason)
    return found(value) if found else "%#x" % value


def verdict(value):
    """A handler's answer in words; "" where there is none yet."""
    if value == UNKNOWN_VERDICT:
        return ""
    names = [name for bit, name in _VERDICTS if value & bit]
    if value & 1:
        names.insert(0, "advance")
    return ", ".join(names) or "resume"
