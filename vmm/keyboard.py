"""Typing on a guest's PS/2 keyboard: text and keys become scan codes of set 1, sent one by one as the guest takes them.

A US keyboard. What waits is bounded; a guest that takes nothing for a while loses nothing but what finds no room.
Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard Scan Codes".
"""

from micropython import const

_MOST = const(4096)  # scan codes that wait
_PERIODS = const(200)  # a second: how often the next byte may come
_UP = const(0x80)
_EXTENDED = const(0xE0)
SHIFT = const(0x2A)

# By scan code from 02h on: alone, with shift.
_ROWS = (
    (0x02, "1234567890-=", "!@#$%^&*()_+"), (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1E, "asdfghjkl;'`", 'ASDFGHJKL:"~'), (0x2B, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
)  # fmt: skip
_PLAIN = {"\n": 0x1C, "\r": 0x1C, "\t": 0x0F, "\b": 0x0E, "\x1b": 0x01, " ": 0x39}

KEYS = {
    "esc": 0x01, "backspace": 0x0E, "tab": 0x0F, "enter": 0x1C, "ctrl": 0x1D, "shift": 0x2A, "alt": 0x38,
    "space": 0x39, "capslock": 0x3A, "f1": 0x3B, "f2": 0x3C, "f3": 0x3D, "f4": 0x3E, "f5": 0x3F, "f6": 0x40,
    "f7": 0x41, "f8": 0x42, "f9": 0x43, "f10": 0x44, "f11": 0x57, "f12": 0x58, "home": 0xE047, "up": 0xE048,
    "pageup": 0xE049, "left": 0xE04B, "right": 0xE04D, "end": 0xE04F, "down": 0xE050, "pagedown": 0xE051,
    "insert": 0xE052, "delete": 0xE053,
}  # fmt: skip


def character(c):
    """(scan code, whether with shift). ValueError for one that the keyboard does not have."""
    if c in _PLAIN:
        return _PLAIN[c], False
    for first, plain, shifted in _ROWS:
        at = plain.find(c)
        if at >= 0:
            return first + at, False
        at = shifted.find(c)
        if at >= 0:
            return first + at, True
    raise ValueError("the keyboard has no key for %r" % c)


def key(name):
    """The scan code of a key by its name, or of a character that needs no shift. ValueError."""
    code = KEYS.get(name.lower())
    if code is None:
        if len(name) != 1:
            raise ValueError("there is no key %r; there are %s" % (name, ", ".join(sorted(KEYS))))
        code, shifted = character(name.lower())
        if shifted:
            raise ValueError("%r needs shift" % name)
    return code


def scan(code, up):
    """A scan code as the keyboard sends it: bytes of a key that is pressed, or released."""
    last = code & 0xFF | (_UP if up else 0)
    return [_EXTENDED, last] if code > 0xFF else [last]


class Typist:
    """Of one guest. keyboard: its vmm.devices.i8042.I8042.

    For users: press, send, type.
    """

    def __init__(self, clock, keyboard):
        self._clock = clock
        self._keyboard = keyboard
        self._waiting = []
        self._timer = clock.timer(self._due)

    def reset(self):
        """The machine is reset: nothing is held down, and what has not been sent is gone."""
        self._waiting = []
        self._timer.cancel()

    def type(self, text):
        """Press and release a key for each character. ValueError for one that has none, MemoryError where too much
        waits; nothing is typed then."""
        codes = []
        for c in text:
            code, shifted = character(c)
            around = ([SHIFT], [SHIFT | _UP]) if shifted else ([], [])
            codes += around[0] + scan(code, False) + scan(code, True) + around[1]
        self.send(codes)

    def press(self, *names):
        """Press keys one after the other, and release them: press("ctrl", "alt", "delete"). ValueError."""
        codes = [key(name) for name in names]
        down = [byte for code in codes for byte in scan(code, False)]
        self.send(down + [byte for code in reversed(codes) for byte in scan(code, True)])

    def send(self, codes):
        """Bytes of scan codes of set 1. MemoryError where too much waits; none is sent then."""
        if len(self._waiting) + len(codes) > _MOST:
            raise MemoryError("%d scan codes wait already; the guest takes none" % len(self._waiting))
        idle = not self._waiting
        self._waiting += codes
        if idle and codes:
            self._later()

    def _later(self):
        self._timer.arm(self._clock.now() + self._clock.hz // _PERIODS)

    def _due(self, _):
        if self._keyboard.idle:
            self._keyboard.key(self._waiting.pop(0))
        if self._waiting:
            self._later()
