"""The decoder's opcode tables: operation and operand form of each opcode.

Opcodes are numbered by map: 000h + byte, 100h + byte after 0Fh, 200h + byte after
0F38h. Source: SDM Vol. 2D, "Opcode Map".
"""

from micropython import const

# Operations. The first eight are in the order of the opcode map and of group 1.
ADD = const(0)
OR = const(1)
ADC = const(2)
SBB = const(3)
AND = const(4)
SUB = const(5)
XOR = const(6)
CMP = const(7)
MOV = const(8)
MOVZX = const(9)
MOVSX = const(10)
TEST = const(11)
NOT = const(12)
NEG = const(13)
INC = const(14)
DEC = const(15)
XCHG = const(16)
CMPXCHG = const(17)
XADD = const(18)
BT = const(19)
BTS = const(20)
BTR = const(21)
BTC = const(22)
PUSH = const(23)
POP = const(24)
MOVBE = const(25)
CMOV = const(26)
SETCC = const(27)
MOVS = const(28)
CMPS = const(29)
STOS = const(30)
LODS = const(31)
SCAS = const(32)

NAMES = (
    "add", "or", "adc", "sbb", "and", "sub", "xor", "cmp", "mov", "movzx", "movsx", "test",
    "not", "neg", "inc", "dec", "xchg", "cmpxchg", "xadd", "bt", "bts", "btr", "btc", "push",
    "pop", "movbe", "cmov", "set", "movs", "cmps", "stos", "lods", "scas",
)  # fmt: skip

# Forms: E memory, G register, I immediate (at most 32 bits), I8 sign-extended byte,
# S segment register, 1 a byte whatever the opcode's bit 0, EB/EW/ED narrower memory.
E_G = const(1)
G_E = const(2)
E_I = const(3)
E_I8 = const(4)
E = const(5)
E_1 = const(6)
E_S = const(7)
G_EB = const(8)
G_EW = const(9)
G_ED = const(10)
A_O = const(11)  # accumulator from moffs
O_A = const(12)
STRING = const(13)
GROUPS = const(14)  # by ModR/M's reg: group_op()

READ = const(1)
WRITE = const(2)


def _tables():
    ops = bytearray(0x300)
    forms = bytearray(0x300)
    wide = bytearray(0x300)  # operand-sized although bit 0 is clear

    def put(opcode, op, form, count=1):
        for at in range(opcode, opcode + count):
            ops[at] = op
            forms[at] = form

    for op in range(8):
        put(op * 8, op, E_G, 2)
        put(op * 8 + 2, op, G_E, 2)
    put(0x63, MOVSX, G_ED)
    put(0x80, 0, GROUPS, 4)
    put(0x84, TEST, E_G, 2)
    put(0x86, XCHG, E_G, 2)
    put(0x88, MOV, E_G, 2)
    put(0x8A, MOV, G_E, 2)
    put(0x8C, MOV, E_S)
    put(0x8F, 0, GROUPS)
    put(0xA0, MOV, A_O, 2)
    put(0xA2, MOV, O_A, 2)
    put(0xA4, MOVS, STRING, 2)
    put(0xA6, CMPS, STRING, 2)
    put(0xAA, STOS, STRING, 2)
    put(0xAC, LODS, STRING, 2)
    put(0xAE, SCAS, STRING, 2)
    put(0xC6, 0, GROUPS, 2)
    put(0xF6, 0, GROUPS, 2)
    put(0xFE, 0, GROUPS, 2)
    put(0x140, CMOV, G_E, 16)
    put(0x190, SETCC, E_1, 16)
    for opcode, op in ((0x1A3, BT), (0x1AB, BTS), (0x1B3, BTR), (0x1BB, BTC)):
        put(opcode, op, E_G)
    put(0x1B0, CMPXCHG, E_G, 2)
    put(0x1B6, MOVZX, G_EB)
    put(0x1B7, MOVZX, G_EW)
    put(0x1BA, 0, GROUPS)
    put(0x1BE, MOVSX, G_EB)
    put(0x1BF, MOVSX, G_EW)
    put(0x1C0, XADD, E_G, 2)
    put(0x1C3, MOV, E_G)  # MOVNTI
    put(0x2F0, MOVBE, G_E)
    put(0x2F1, MOVBE, E_G)
    for opcode in range(0x140, 0x150):
        wide[opcode] = 1
    wide[0x1BA] = wide[0x2F0] = 1
    return bytes(ops), bytes(forms), bytes(wide)


OPS, FORMS, WIDE = _tables()


def group_op(opcode, reg):
    """operation | form << 8 of an opcode that ModR/M's reg field extends; 0: unknown."""
    if opcode <= 0x83:
        return reg | (E_I if opcode < 0x82 else E_I8) << 8
    if opcode == 0x8F:
        return POP | E << 8 if reg == 0 else 0
    if opcode == 0xC6 or opcode == 0xC7:
        return MOV | E_I << 8 if reg == 0 else 0
    if opcode == 0xF6 or opcode == 0xF7:
        if reg < 2:
            return TEST | E_I << 8
        if reg < 4:
            return (NOT if reg == 2 else NEG) | E << 8
        return 0
    if opcode == 0x1BA:
        return BT + reg - 4 | E_I8 << 8 if reg >= 4 else 0
    if reg < 2:
        return (INC if reg == 0 else DEC) | E << 8
    return PUSH | E << 8 if opcode == 0xFF and reg == 6 else 0


def access(op, form):
    """READ, WRITE or both: what the instruction does to its memory operand.

    For MOVS and CMPS this is the operand at DS:rSI.
    """
    if op == CMP or op == TEST or op == BT or op == PUSH or op == CMPS or op == SCAS:
        return READ
    if op == LODS or op == MOVS or op == CMOV or op == MOVZX or op == MOVSX:
        return READ
    if form == G_E or form == A_O:
        return READ
    if op == STOS or op == POP or op == SETCC or op == MOV or op == MOVBE:
        return WRITE
    return READ | WRITE
