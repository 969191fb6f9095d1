"""Code as lines: address, bytes, the instruction's name, and where calls and jumps lead.

    >>> vms['linux'].disassemble("do_sys_openat2", 4)

Names of the usual instructions without their operands; `pcanel repl` recognises a line by its form (FORM) and puts
capstone's text there (host-tools/pcanel/disassembly.py). Source: SDM Vol. 2A, "Instruction Format"; Vol. 2D, "Opcode
Map".
"""

from vmm.emulation import length
from vmm.vtx.x86 import INSTRUCTION_BYTES, MASK64, PAGE

FORM = "%s%#018x %d: %-30s %s"  # mark, gva, bits, bytes, text

_STRINGS = ("movs", "stos", "lods", "scas", "cmps", "ins", "outs")
_ALU = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")
_SHIFT = ("rol", "ror", "rcl", "rcr", "shl", "shr", "sal", "sar")
_CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")
_ONE = {
    0x63: "movsxd", 0x68: "push", 0x69: "imul", 0x6A: "push", 0x6B: "imul", 0x6C: "insb", 0x6D: "ins", 0x6E: "outsb",
    0x6F: "outs", 0x84: "test", 0x85: "test", 0x86: "xchg", 0x87: "xchg", 0x88: "mov", 0x89: "mov", 0x8A: "mov",
    0x8B: "mov", 0x8C: "mov", 0x8D: "lea", 0x8E: "mov", 0x8F: "pop", 0x90: "nop", 0x98: "cwde", 0x99: "cdq",
    0x9A: "call far", 0x9B: "wait", 0x9C: "pushf", 0x9D: "popf", 0x9E: "sahf", 0x9F: "lahf", 0xA4: "movsb",
    0xA5: "movs", 0xA6: "cmpsb", 0xA7: "cmps", 0xA8: "test", 0xA9: "test", 0xAA: "stosb", 0xAB: "stos",
    0xAC: "lodsb", 0xAD: "lods", 0xAE: "scasb", 0xAF: "scas", 0xC2: "ret", 0xC3: "ret", 0xC6: "mov", 0xC7: "mov",
    0xC8: "enter", 0xC9: "leave", 0xCA: "retf", 0xCB: "retf", 0xCC: "int3", 0xCD: "int", 0xCE: "into", 0xCF: "iret",
    0xE4: "in", 0xE5: "in", 0xE6: "out", 0xE7: "out", 0xEA: "jmp far", 0xEC: "in", 0xED: "in", 0xEE: "out",
    0xEF: "out", 0xF1: "int1", 0xF4: "hlt", 0xF5: "cmc", 0xF8: "clc", 0xF9: "stc", 0xFA: "cli", 0xFB: "sti",
    0xFC: "cld", 0xFD: "std",
}  # fmt: skip
_TWO = {
    0x02: "lar", 0x03: "lsl", 0x05: "syscall", 0x06: "clts", 0x07: "sysret", 0x08: "invd", 0x09: "wbinvd",
    0x0B: "ud2", 0x0D: "prefetch", 0x1E: "nop", 0x1F: "nop", 0x20: "mov from cr", 0x21: "mov from dr",
    0x22: "mov to cr", 0x23: "mov to dr", 0x30: "wrmsr", 0x31: "rdtsc", 0x32: "rdmsr", 0x33: "rdpmc",
    0x34: "sysenter", 0x35: "sysexit", 0xA0: "push fs", 0xA1: "pop fs", 0xA2: "cpuid", 0xA3: "bt", 0xA4: "shld",
    0xA5: "shld", 0xA8: "push gs", 0xA9: "pop gs", 0xAB: "bts", 0xAC: "shrd", 0xAD: "shrd", 0xAF: "imul",
    0xB0: "cmpxchg", 0xB1: "cmpxchg", 0xB2: "lss", 0xB3: "btr", 0xB4: "lfs", 0xB5: "lgs", 0xB6: "movzx", 0xB7: "movzx",
    0xB8: "popcnt", 0xB9: "ud1", 0xBB: "btc", 0xBC: "bsf", 0xBD: "bsr", 0xBE: "movsx", 0xBF: "movsx", 0xC0: "xadd",
    0xC1: "xadd", 0xC3: "movnti", 0xFF: "ud0",
}  # fmt: skip
_GROUPS = {
    0x100: ("sldt", "str", "lldt", "ltr", "verr", "verw", "?", "?"),
    0x101: ("sgdt", "sidt", "lgdt", "lidt", "smsw", "?", "lmsw", "invlpg"),
    0x1AE: ("fxsave", "fxrstor", "ldmxcsr", "stmxcsr", "xsave", "xrstor", "xsaveopt", "clflush"),
    0x1BA: ("?", "?", "?", "?", "bt", "bts", "btr", "btc"),
    0x1C7: ("?", "cmpxchg", "?", "xrstors", "xsavec", "xsaves", "rdrand", "rdseed"),
    0xF6: ("test", "test", "not", "neg", "mul", "imul", "div", "idiv"),
    0xF7: ("test", "test", "not", "neg", "mul", "imul", "div", "idiv"),
    0xFE: ("inc", "dec", "?", "?", "?", "?", "?", "?"),
    0xFF: ("inc", "dec", "call", "call far", "jmp", "jmp far", "push", "?"),
}
_REGISTER_FORMS = {
    0xC1: "vmcall", 0xC8: "monitor", 0xC9: "mwait", 0xCA: "clac", 0xCB: "stac", 0xD0: "xgetbv", 0xD1: "xsetbv",
    0xF8: "swapgs", 0xF9: "rdtscp",
}  # fmt: skip


class Line:
    """One instruction: gva, code (its bytes), bits, name, target (of a near call or jump, or None)."""

    def __init__(self, gva, code, bits, name, target):
        self.gva = gva
        self.code = code
        self.bits = bits
        self.name = name
        self.target = target

    def text(self, place, mark="   "):
        """The line as it is printed. place(gva): an address and its name."""
        words = self.name
        if self.target is not None:
            words += " " + place(self.target)
        shown = " ".join(["%02x" % byte for byte in self.code])
        return FORM % (mark, self.gva, self.bits, shown, words)


def decode(code, bits, gva):
    """The Line of the first instruction in `code`, at gva. length.Unknown where it is none."""
    count = length.length(code, bits)
    at = 0
    while code[at] in length.PREFIXES:
        at += 1
    prefixes = bytes(code[:at])
    rex = bits == 64 and code[at] & 0xF0 == 0x40
    if rex:
        at += 1
    code = bytes(code[:count])
    name, size = _name(code, at, bits)
    target = None
    if size:
        if b"\x66" in prefixes and bits != 64:
            size = size if size == 1 else count - at - (2 if code[at] == 0x0F else 1)
        offset = int.from_bytes(code[count - size :], "little")
        if offset >> 8 * size - 1:
            offset -= 1 << 8 * size
        target = gva + count + offset & (MASK64 if bits == 64 else 0xFFFFFFFF)
        if bits == 16:
            target = gva & ~0xFFFF | target & 0xFFFF
    for byte, word in ((0xF0, "lock "), (0xF3, "rep "), (0xF2, "repne ")):
        if byte in prefixes and (byte == 0xF0 or name.rstrip("b") in _STRINGS):
            name = word + name
    return Line(gva, code, bits, name, target)


def _name(code, at, bits):
    """(name, bytes of the displacement of a near branch, or 0)."""
    near = 2 if bits == 16 else 4
    op = code[at]
    rest = code[at + 1] if at + 1 < len(code) else 0
    reg = rest >> 3 & 7
    if op == 0x0F:
        second = rest
        modrm = code[at + 2] if at + 2 < len(code) else 0
        if second == 0x01 and modrm >= 0xC0 and modrm in _REGISTER_FORMS:
            return _REGISTER_FORMS[modrm], 0
        if 0x80 <= second <= 0x8F:
            return "j" + _CONDITIONS[second & 15], near
        if 0x90 <= second <= 0x9F:
            return "set" + _CONDITIONS[second & 15], 0
        if 0x40 <= second <= 0x4F:
            return "cmov" + _CONDITIONS[second & 15], 0
        if 0xC8 <= second <= 0xCF:
            return "bswap", 0
        if second == 0xAE and modrm >= 0xE8:
            return ("lfence", "mfence", "sfence")[(modrm >> 3 & 7) - 5], 0
        group = _GROUPS.get(0x100 | second)
        return (group[modrm >> 3 & 7] if group else _TWO.get(second, "")), 0
    if op < 0x40 and op & 7 < 6:
        return _ALU[op >> 3], 0
    if op < 0x20:
        return ("push", "pop")[op & 1], 0
    if 0x40 <= op <= 0x4F:
        return ("inc", "dec")[op >> 3 & 1], 0
    if 0x50 <= op <= 0x5F:
        return ("push", "pop")[op >> 3 & 1], 0
    if 0x70 <= op <= 0x7F:
        return "j" + _CONDITIONS[op & 15], 1
    if 0x80 <= op <= 0x83:
        return _ALU[reg], 0
    if 0x91 <= op <= 0x97:
        return "xchg", 0
    if 0xA0 <= op <= 0xA3 or 0xB0 <= op <= 0xBF:
        return "mov", 0
    if op in (0xC0, 0xC1, 0xD0, 0xD1, 0xD2, 0xD3):
        return _SHIFT[reg], 0
    if 0xE0 <= op <= 0xE3:
        return ("loopne", "loope", "loop", "jcxz")[op & 3], 1
    if op == 0xE8:
        return "call", near
    if op == 0xE9:
        return "jmp", near
    if op == 0xEB:
        return "jmp", 1
    if op in _GROUPS:
        return _GROUPS[op][reg], 0
    return _ONE.get(op, ""), 0


def read(m, gva, size):
    """Bytes from gva on, as many of `size` as are mapped, without regard to the pages' rights. m: a Machine."""
    out = b""
    while size:
        piece = min(size, PAGE - (gva & PAGE - 1))
        try:
            out += m.look(gva, piece)
        except ValueError:
            break
        gva = gva + piece & MASK64
        size -= piece
    return out


class Code(list):
    """Lines that print as they are; from disassemble()."""

    def __init__(self, lines, text):
        super().__init__(lines)
        self._text = text

    def __repr__(self):
        return self._text

    __str__ = __repr__


def disassemble(m, gva, count, behind, rip=None):
    """`count` Lines from the linear address gva on, as Code. rip: the linear address that is marked."""
    bits = m.vcpu.bits
    lines, texts = [], []

    def place(gva):
        return "%#x%s" % (gva, behind(gva))

    code = read(m, gva, min(INSTRUCTION_BYTES * count, 0x1000))
    at = 0
    while len(lines) < count:
        if len(code) - at < INSTRUCTION_BYTES:
            code, at = read(m, gva, INSTRUCTION_BYTES), 0
        name = behind(gva)
        if name and "+" not in name:
            texts.append("%s:" % name[1:])
        try:
            if not code[at:]:
                raise ValueError("cannot be read: %s" % (m.walk(gva, 0, m.cpl).why or "there is no RAM"))
            line = decode(code[at : at + INSTRUCTION_BYTES], bits, gva)
        except ValueError as error:
            texts.append("   %#018x %s" % (gva, error))
            break
        lines.append(line)
        texts.append(line.text(place, "=> " if gva == rip else "   "))
        gva = gva + len(line.code) & MASK64
        at += len(line.code)
    return Code(lines, "\n".join(texts))
