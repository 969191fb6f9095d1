"""Why an instruction raised an exception, in words: from the vCPU's state, the exception's vector, error code and
address.

Source: SDM Vol. 3A, "Exception and Interrupt Reference"; Vol. 2, the exceptions of the instructions that are named.
"""

from micropython import const

from vmm.debug import instructions
from vmm.debug.machine import Unreadable
from vmm.emulation.decode import NONE, RIP, DecodeError, Instruction
from vmm.fault import AC, BP, DE, GP, NM, NP, PF, SS, TS, UD
from vmm.loaders.state import GPRS
from vmm.memory.linear import canonical
from vmm.memory.paging import FETCH, USER, WRITE
from vmm.vtx.x86 import CR0_EM, CR0_MP, CR0_TS, CR4_LA57, CR4_OSFXSR, CR4_OSXSAVE, INSTRUCTION_BYTES, MASK64

_NULL = const(0x1000)
_PRIVILEGED = (
    "hlt", "cli", "sti", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "invlpg", "invd", "wbinvd", "wrmsr", "rdmsr",
    "mov to cr", "mov from cr", "mov to dr", "mov from dr", "sysret", "swapgs", "xsetbv", "in", "out",
)  # fmt: skip


def instruction(m):
    """(linear address, Line or None) of the instruction at RIP."""
    vcpu = m.vcpu
    gva = vcpu.rip if m.long and vcpu.bits == 64 else vcpu.rip + vcpu.cs[1] & 0xFFFFFFFF
    try:
        return gva, instructions.decode(instructions.read(m, gva, INSTRUCTION_BYTES), vcpu.bits, gva)
    except ValueError:
        return gva, None


def words(m, vector, error, address):
    """Lines that say why the instruction at RIP raised this exception."""
    if vector == PF:
        return page_fault(m, error or 0, address)
    if vector in (GP, NP, SS, TS) and error:
        return [selector_fault(m, error)]
    gva, line = instruction(m)
    if line is None:
        return ["the bytes at RIP are no instruction"]
    if vector == UD:
        return _undefined(m, line)
    if vector == NM:
        return _not_available(m)
    if vector == DE:
        return ["the divisor is 0, or the quotient has no room in its register"]
    if vector == BP:
        return ["INT3: a breakpoint in the program"]
    if vector == AC:
        return ["an access that is not aligned, with CR0.AM and RFLAGS.AC set at CPL 3"]
    if vector in (GP, SS):
        return _general(m, line)
    return []


def page_fault(m, error, address):
    """The kind of access, and the level of the page tables that refuses it."""
    kind = FETCH if error & FETCH else WRITE if error & WRITE else 0
    done = m.walk(address, kind, 3 if error & USER else 0)
    what = {FETCH: "an instruction fetch from", WRITE: "a write to", 0: "a read of"}[kind]
    gva = instruction(m)[0]
    if not error & FETCH and gva <= address <= gva + INSTRUCTION_BYTES and not _readable(m, gva):
        what = "an instruction fetch from"
    lines = ["%s %s" % (what, m.place(address))]
    if done.why:
        lines.append(done.why)
    else:
        lines.append("the page tables allow it by now: the CPU used an older translation (INVLPG missing?)")
    if address < _NULL:
        lines.append("that is near 0: a NULL pointer, or a member of one")
    if what.startswith("an instruction") and m.mode.paging:
        lines.append("the page that RIP is in is not mapped for execution by the tables in CR3 (%#x)" % m.mode.cr3)
    return lines


def _readable(m, gva):
    return not m.walk(gva, FETCH, m.cpl).why


def selector_fault(m, error):
    """The descriptor that an error code names."""
    index = error & 0xFFF8
    if error & 2:
        return "it is about gate %d of the IDT" % (index >> 3)
    table, base, limit = m.table(error & 4)
    what = "selector %#x" % (error & 0xFFFC)
    if limit < 0:
        return "%s is of an LDT, and there is none" % what
    if index + 7 > limit:
        return "%s lies beyond the %s at %s, whose limit is %#x" % (what, table, m.place(base), limit)
    try:
        found = m.descriptor(base + index)
    except Unreadable as unreadable:
        return "the descriptor of %s cannot be read: %s" % (what, unreadable)
    if not found.raw:
        return "the descriptor of %s in the %s at %s is all zero" % (what, table, m.place(base))
    from vmm.debug.descriptors import type_name

    present = "" if found.present else ", not present (P = 0)"
    return "%s in the %s is: %s, DPL %d, base %#x, limit %#x%s" % (
        what, table, type_name(found.rights, m.long), found.dpl, found.base, found.limit, present,
    )  # fmt: skip


def _undefined(m, line):
    code = line.code
    if line.name in ("ud2", "ud1", "ud0"):
        return ["%s: the program's own trap (a failed assertion, code that is never reached)" % line.name.upper()]
    if not any(code) or not any(instructions.read(m, line.gva, 16)):
        return ["the code there is all zeros: RIP has left the program"]
    cr0, cr4 = m.mode.cr0, m.mode.cr4
    vector = code[0] in (0xC4, 0xC5, 0x62) and m.vcpu.bits == 64
    if vector and not cr4 & CR4_OSXSAVE:
        return ["an AVX instruction, and CR4.OSXSAVE = 0: the kernel has not enabled AVX"]
    if vector:
        return ["an AVX instruction, and XCR0 = %#x: the state that it needs is not enabled" % m.vcpu.xcr0]
    if _is_sse(code):
        if not cr4 & CR4_OSFXSR:
            return ["an SSE instruction, and CR4.OSFXSR = 0: the kernel has not enabled SSE (-mno-sse, or set it)"]
        if cr0 & CR0_EM:
            return ["an SSE instruction, and CR0.EM = 1"]
    if code[-1] == 0x05 and line.name == "syscall" and not m.mode.efer & 1:
        return ["SYSCALL, and EFER.SCE = 0"]
    if not m.protected and line.name in ("lldt", "ltr", "sldt", "str", "lar", "lsl"):
        return ["%s is not there in real mode" % line.name.upper()]
    return ["not an instruction in %d-bit code, or one that CPUID does not offer" % m.vcpu.bits]


def _is_sse(code):
    at = 0
    while at < len(code) - 1 and (code[at] in b"\x66\xf2\xf3\x2e\x36\x3e\x26\x64\x65\x67" or code[at] & 0xF0 == 0x40):
        at += 1
    if code[at] != 0x0F or at + 1 >= len(code):
        return False
    op = code[at + 1]
    if op in (0xC2, 0xC6, 0x38, 0x3A) or op >= 0xD0:
        return True
    return 0x10 <= op <= 0x17 or 0x28 <= op <= 0x2F or 0x50 <= op <= 0x7F


def _not_available(m):
    cr0 = m.mode.cr0
    bits = [name for name, bit in (("EM", CR0_EM), ("TS", CR0_TS), ("MP", CR0_MP)) if cr0 & bit]
    return ["an FPU, MMX or SSE instruction, and CR0 has %s set" % " and ".join(bits or ["none of EM and TS"])]


def _general(m, line):
    """#GP(0) and #SS(0): the reason as far as the state shows it."""
    name = line.name
    vcpu = m.vcpu
    if m.cpl and name in _PRIVILEGED:
        return ["%s is not allowed at CPL %d" % (name.upper(), m.cpl)]
    if name in ("rdmsr", "wrmsr"):
        text = "%s of MSR %#x" % (name.upper(), vcpu.rcx & 0xFFFFFFFF)
        if name == "wrmsr":
            text += " with %#x" % ((vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF)
        return [text + ": this CPU has no such MSR, or refuses the value"]
    if name == "mov to cr":
        value = getattr(vcpu, GPRS[line.code[-1] & 7 | (8 if line.code[0] & 0xF1 == 0x41 else 0)])
        number = line.code[-1] >> 3 & 7
        return ["MOV to CR%d of %#x: a reserved bit, or a combination that is not allowed" % (number, value)]
    if name == "xsetbv":
        return ["XSETBV refuses %#x" % ((vcpu.rdx & 0xFFFFFFFF) << 32 | vcpu.rax & 0xFFFFFFFF)]
    if name == "iret":
        return ["IRET: the frame on the stack at %s does not fit (selectors, RIP, flags)" % m.place(vcpu.rsp)]
    if name in ("hlt", "cli", "sti", "in", "out") and m.v8086:
        return ["%s in virtual-8086 mode with IOPL below 3" % name.upper()]
    other = "%s: an operand beyond its segment, a null selector, or a reserved bit" % name.upper()
    return (_jump(m) if name == "ret" else _operand(m, line)) or [other]


def _operand(m, line):
    """A memory operand that is not canonical, or a MOVAPS that is not aligned."""
    vcpu = m.vcpu
    if vcpu.bits != 64:
        return None
    code = line.code + bytes(INSTRUCTION_BYTES - len(line.code))
    found = Instruction()
    try:
        found.bits = 64
        at = found.prefixes(code, 64)
        at += 2 if code[at] == 0x0F else 1
        if code[at] >= 0xC0:
            return None
        found.locate(code, at)
    except (DecodeError, IndexError):
        return None
    gva = found.disp
    if found.base == RIP:
        gva += vcpu.rip + len(line.code)
    elif found.base != NONE:
        gva += getattr(vcpu, GPRS[found.base])
    if found.index != NONE:
        gva += getattr(vcpu, GPRS[found.index]) * found.scale
    gva &= MASK64
    width = 57 if m.mode.cr4 & CR4_LA57 else 48
    if not canonical(gva, width):
        return ["its operand is at %#x, which is not canonical" % gva]
    if _is_sse(line.code) and gva & 15:
        return ["an SSE operand at %#x, which is not aligned to 16 bytes" % gva]
    return None


def _jump(m):
    """RET to an address that is not canonical."""
    try:
        to = m.number(m.vcpu.rsp, 8)
    except ValueError:
        return None
    if not canonical(to, 57 if m.mode.cr4 & CR4_LA57 else 48):
        return ["RET to %#x, which is not canonical: the stack at %s is not what it was" % (to, m.place(m.vcpu.rsp))]
    return None
