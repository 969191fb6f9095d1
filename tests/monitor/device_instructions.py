"""The instructions of test_device_memory.py: each kind that can access memory, with the accesses that a device sees."""

import struct

GDT = 0x1000
HALT = 0x13F000
PATTERN = bytes(range(0x11, 0x81))
FLOATS = struct.pack("<4d", 1.5, -2.25, 1e10, 0.0)
CODE_POINTER = struct.pack("<QH", HALT, 0x10)
# (instruction at [rsi], bytes there, accesses that the device sees as "r" or "w" and size at offset from `at`)
R, W = "r", "w"


def r(*sizes):
    return _accesses(R, sizes)


def w(*sizes):
    return _accesses(W, sizes)


def _accesses(kind, sizes):
    out, at = [], 0
    for size in sizes:
        out.append((kind, at, size))
        at += size
    return out


CASES = [
    ("or dword ptr [rsi], eax", PATTERN, r(4) + w(4)),
    ("xchg [rsi], eax", PATTERN, r(4) + w(4)),
    ("cmpxchg [rsi], ecx", PATTERN, r(4) + w(4)),
    ("bt dword ptr [rsi], eax", PATTERN, [(R, 4, 4)]),
    ("movbe eax, [rsi]", PATTERN, r(4)),
    ("bsf eax, [rsi]", PATTERN, r(4)),
    ("bsr rax, [rsi]", PATTERN, r(8)),
    ("tzcnt eax, [rsi]", PATTERN, r(4)),
    ("lzcnt ax, [rsi]", PATTERN, r(2)),
    ("popcnt eax, [rsi]", PATTERN, r(4)),
    ("imul eax, [rsi]", PATTERN, r(4)),
    ("imul eax, [rsi], 3", PATTERN, r(4)),
    ("mul dword ptr [rsi]", PATTERN, r(4)),
    ("mul byte ptr [rsi]", PATTERN, r(1)),
    ("div dword ptr [rsi]", PATTERN, r(4)),
    ("idiv qword ptr [rsi]", PATTERN, r(8)),
    ("shl dword ptr [rsi], 1", PATTERN, r(4) + w(4)),
    ("shr dword ptr [rsi], cl", PATTERN, r(4) + w(4)),
    ("rol byte ptr [rsi], 1", PATTERN, r(1) + w(1)),
    ("rcr qword ptr [rsi], 5", PATTERN, r(8) + w(8)),
    ("shld [rsi], eax, 3", PATTERN, r(4) + w(4)),
    ("shrd [rsi], eax, cl", PATTERN, r(4) + w(4)),
    ("movups xmm0, [rsi]", PATTERN, r(8, 8)),
    ("movups [rsi], xmm0", PATTERN, w(8, 8)),
    ("movdqu xmm0, [rsi]", PATTERN, r(8, 8)),
    ("movaps [rsi], xmm0", PATTERN, w(8, 8)),
    ("vmovups ymm2, [rsi]", PATTERN, r(8, 8, 8, 8)),
    ("vmovups [rsi], ymm0", PATTERN, w(8, 8, 8, 8)),
    ("movq xmm0, [rsi]", PATTERN, r(8)),
    ("movd xmm0, [rsi]", PATTERN, r(4)),
    ("movq mm0, [rsi]", PATTERN, r(8)),
    ("movss xmm0, [rsi]", FLOATS, r(4)),
    ("addsd xmm0, [rsi]", FLOATS, r(8)),
    ("mulpd xmm0, [rsi]", FLOATS, r(8, 8)),
    ("vfmadd231sd xmm0, xmm1, qword ptr [rsi]", FLOATS, r(8)),
    ("cvtsi2sd xmm0, dword ptr [rsi]", PATTERN, r(4)),
    ("pmovzxbw xmm0, [rsi]", PATTERN, r(8)),
    ("pextrd [rsi], xmm1, 1", PATTERN, w(4)),
    ("movntdq [rsi], xmm0", PATTERN, w(8, 8)),
    ("fld dword ptr [rsi]", FLOATS, r(4)),
    ("fld qword ptr [rsi]", FLOATS, r(8)),
    ("fld tbyte ptr [rsi]", bytes(range(10)), r(8, 2)),
    ("fstp tbyte ptr [rsi]", PATTERN, w(8, 2)),
    ("fistp dword ptr [rsi]", PATTERN, w(4)),
    ("fnstcw [rsi]", PATTERN, w(2)),
    ("fnstenv [rsi]", PATTERN, w(*[4] * 7)),
    ("ldmxcsr [rsi]", struct.pack("<I", 0x1FA0), r(4)),
    ("stmxcsr [rsi]", PATTERN, w(4)),
    ("cmpxchg8b [rsi]", PATTERN, r(8) + w(8)),
    ("lock cmpxchg8b [rsi]", struct.pack("<QQ", 0x21, 0), r(8) + w(8)),
    ("cmpxchg16b [rsi]", PATTERN, r(8, 8) + w(8, 8)),
    ("lock cmpxchg16b [rsi]", struct.pack("<QQ", 0x21, 0), r(8, 8) + w(8, 8)),
    ("push qword ptr [rsi]", PATTERN, r(8)),
    ("pop qword ptr [rsi]", PATTERN, w(8)),
    ("call [rsi]", CODE_POINTER, r(8)),
    ("jmp [rsi]", CODE_POINTER, r(8)),
    ("smsw [rsi]", PATTERN, w(2)),
    ("sgdt [rsi]", PATTERN, w(8, 2)),
    ("lgdt [rsi]", struct.pack("<HQ", 0x1F, GDT), r(8, 2)),
    ("sidt [rsi]", PATTERN, w(8, 2)),
    ("sldt word ptr [rsi]", PATTERN, w(2)),
    ("str word ptr [rsi]", PATTERN, w(2)),
    ("lldt word ptr [rsi]", bytes(2), r(2)),
    ("verr word ptr [rsi]", struct.pack("<H", 0x18), r(2)),
    ("lar eax, [rsi]", struct.pack("<H", 0x18), r(2)),
    ("lmsw [rsi]", struct.pack("<H", 3), r(2)),
    ("mov ds, [rsi]", struct.pack("<H", 0x18), r(2)),
    ("mov ss, [rsi]", struct.pack("<H", 0x18), r(2)),
    ("prefetcht0 [rsi]", PATTERN, []),
    ("clflush [rsi]", PATTERN, []),
    ("crc32 eax, dword ptr [rsi]", PATTERN, r(4)),
    ("andn eax, ecx, [rsi]", PATTERN, r(4)),
    ("pdep rax, rcx, [rsi]", PATTERN, r(8)),
    ("rorx eax, [rsi], 3", PATTERN, r(4)),
    ("adcx rax, [rsi]", PATTERN, r(8)),
    ("lea eax, [rsi]", PATTERN, []),
    ("movzx eax, word ptr [rsi]", PATTERN, r(2)),
    ("movsx rax, byte ptr [rsi]", PATTERN, r(1)),
    ("adc [rsi], al", PATTERN, r(1) + w(1)),
    ("cmovz eax, [rsi]", PATTERN, r(4)),
    ("setc [rsi]", PATTERN, w(1)),
    ("test [rsi], eax", PATTERN, r(4)),
    ("xadd [rsi], eax", PATTERN, r(4) + w(4)),
    ("mov rsp, rsi; push rax", PATTERN, [(W, -8, 8)]),
    ("mov rsp, rsi; push 0x12345", PATTERN, [(W, -8, 8)]),
    ("mov rsp, rsi; push fs", PATTERN, [(W, -8, 8)]),
    ("mov rsp, rsi; pushfq", PATTERN, [(W, -8, 8)]),
    ("mov rsp, rsi; popfq", struct.pack("<Q", 0xC97), r(8)),
    ("mov rsp, rsi; pop rax", PATTERN, r(8)),
    ("mov rsp, rsi; push qword ptr [rsi]", PATTERN, r(8) + [(W, -8, 8)]),
    ("mov rsp, rsi; call [rsi]", CODE_POINTER, r(8) + [(W, -8, 8)]),
    ("mov rsp, rsi; ret", CODE_POINTER, r(8)),
    ("mov rbp, rsi; leave", PATTERN, r(8)),
    ("mov rsp, rsi; enter 0x10, 0", PATTERN, [(W, -8, 8)]),
    (
        "mov rsp, rsi; mov rbp, rsi; enter 0x10, 3",
        PATTERN,
        [(R, -16, 8), (R, -8, 8)] + [(W, -8 * i, 8) for i in (1, 2, 3, 4)],
    ),
    ("mov ecx, 2; rep movsb", PATTERN, None),
    ("mov ecx, 3; rep stosd", PATTERN, None),
    ("mov ecx, 3; rep lodsd", PATTERN, r(4, 4, 4)),
    ("cmpsw", PATTERN, None),
    ("lea rbx, [rsi - 0x21]; xlatb", PATTERN, r(1)),
    ("fxrstor [rsi]", None, r(*[8] * 64)),
    ("fxsave [rsi]", bytes(512), w(*[8] * 52)),
    ("frstor [rsi]", bytes(108), r(*[4] * 27)),
    ("fnsave [rsi]", bytes(108), w(*[4] * 27)),
]  # fmt: skip
