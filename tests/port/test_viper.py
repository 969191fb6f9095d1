"""Viper code, as the patched emitter makes it (host-tools/setup/micropython), against the same function in CPython."""

import itertools

import pytest

WORD = 1 << 64
INTEGERS = (0, 1, -1, 7, -128, 127, 255, 0x7FFFFFFF, -0x80000000, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 61, -1 << 61)
WIDE = (*INTEGERS, (1 << 62) - 1, -1 << 62, 1 << 62, (1 << 63) - 1, -1 << 63)  # those from 1 << 62 up are on the heap

# Bodies of f(a, b): constants of each width, on the right and on the left, in values and in jumps.
BODIES = (
    "return a",
    "return a + b",
    "return (a & 0x7F) + (a & 0xFF00) + (a & 0xFFFFFFFF) + (a & -16)",
    "return a & 0x7FFFFFFFFFFFFF",
    "return (a | 5) ^ (a | 0x12345678) ^ (a | -2) ^ (a | 0xFFFFFFFF)",
    "return (a ^ 0xFFFFFFFF) - (b ^ -1) - (a ^ 1)",
    "return (a + 127) ^ (a + 128) ^ (a - 128) ^ (a - 129) ^ (a + 0x7FFFFFFF) ^ (a + 0xFFFFFFFF)",
    "return (a << 1) + (b << 31) + (a >> 1) + (b >> 40) + (a << 0) + (a >> 63)",
    "return 5 - a",
    "return 3 * a + b * 3",
    "return (a & 0xFF) << (b & 7)",
    "return 1 if a < 5 else 2",
    "return 1 if a >= -1 and b <= 0x7FFFFFFF or a == b else 2",
    "return 1 if a & 0x80 else 2",
    "return 1 if a & 0xFFFFFFFF == 0 else 2",
    "return 1 if a == 0xFFFFFFFF or b != -1 else 2",
    "return 1 if -1 < a < b < 1000000 else 2",
    "x = a & 0xFF\n    y = x\n    if x:\n        y += 1\n    return y + x",
    "x = int(a < b)\n    if x:\n        return x + 5\n    return x - 5",
    "x = y = int(a == b)\n    return x + y",
    "n = 0\n    while n < a & 15:\n        n += 2 if n & 1 else 1\n    return n",
    "n = 0\n    for i in range(a & 7):\n        if i == 5:\n            break\n        n += i\n    return n",
    "if a > b:\n        if a > 100:\n            return 1\n        return 2\n    return 3",
)

RUN = """
import micropython
@micropython.viper
def f(a: int, b: int) -> int:
    {body}
print([f(a, b) for a, b in {pairs}])
"""


def signed(value):
    return (value + (WORD >> 1)) % WORD - (WORD >> 1)


def expected(body, a, b):
    names = {}
    exec(f"def f(a, b):\n    {body}", names)
    return names["f"](a, b)


@pytest.mark.parametrize("body", BODIES)
def test_integers(monitor, body):
    small = [(a, b) for a, b in itertools.product(INTEGERS, (0, 3, -1, 1 << 40))]
    wide = [(a, 5) for a in WIDE] + [(5, b) for b in WIDE]
    pairs = small + (wide if body in ("return a", "return a + b", "return 5 - a") else [])
    values = eval(monitor.exec(RUN.format(body=body, pairs=pairs)))
    assert values == [signed(expected(body, a, b)) for a, b in pairs]


MEMORY = """
import micropython
@micropython.viper
def f(buf, i: int) -> int:
    b, h, w = ptr8(buf), ptr16(buf), ptr32(buf)
    seen = 0
    b[0] = 0x11
    b[3] = i
    b[200] = 0x1FF
    h[4] = 0x1234
    h[100] = i
    w[8] = 0x89ABCDEF
    w[90] = i
    w[91] = -1
    b[i] = b[0] + b[3]
    h[i + 10] = h[4] + i
    w[i + 20] = w[8] + i
    j = i + 30
    b[j] = 0x7F
    h[j] = 0x7FFF
    w[j] = 0x7FFFFFFF
    w[j + 1] = int(i == 9)
    b[j - 1] = int(i != 9)
    return b[200] + h[100] + w[90] + w[91] + b[i] + h[i + 10] + w[i + 20] + w[j] + b[j] + w[j + 1]
buf = bytearray(512)
print((f(buf, 9), bytes(buf)))
"""


def test_memory(monitor):
    buf = bytearray(512)

    def put(at, size, value):
        buf[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")

    def get(at, size):
        return int.from_bytes(buf[at : at + size], "little")

    for at, size, value in ((0, 1, 0x11), (3, 1, 9), (200, 1, 0xFF), (8, 2, 0x1234), (200, 2, 9), (32, 4, 0x89ABCDEF)):
        put(at, size, value)
    put(360, 4, 9)
    put(364, 4, -1)
    put(9, 1, buf[0] + buf[3])
    put(38, 2, get(8, 2) + 9)
    put(116, 4, get(32, 4) + 9)
    for at, size, value in ((39, 1, 0x7F), (78, 2, 0x7FFF), (156, 4, 0x7FFFFFFF), (160, 4, 1), (38, 1, 0)):
        put(at, size, value)
    places = ((200, 1), (200, 2), (360, 4), (364, 4), (9, 1), (38, 2), (116, 4), (156, 4), (39, 1), (160, 4))
    assert eval(monitor.exec(MEMORY)) == (sum(get(*place) for place in places), bytes(buf))


CALLS = """
import micropython
@micropython.viper
def f(a: int, p: ptr32, flag: bool, obj) -> uint:
    if flag:
        return uint(p[1]) + uint(a)
    return uint(len(obj))
from array import array
words = array('I', [1, 0xFFFFFFFF])
print(f(1, words, True, None), f(1 << 61, words, 1, 0), f(0, 0, False, 'four'))
for args, kw in (((1,), {}), ((1, words, 1, 1, 1), {}), ((1, words, True), {'obj': 1})):
    try:
        f(*args, **kw)
        print('taken')
    except TypeError as error:
        print('TypeError')
"""


def test_arguments(monitor):
    """Of each type; too few, too many and keywords are refused."""
    assert monitor.exec(CALLS).split() == [str(1 << 32), str((1 << 61) + 0xFFFFFFFF), "4", *["TypeError"] * 3]
