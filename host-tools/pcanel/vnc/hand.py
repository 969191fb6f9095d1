"""What a viewer's keys and pointer are on a guest's PS/2 keyboard and mouse.

Keysyms are X11's (RFC 6143, 7.5.4). A US keyboard: where a client sends a character that needs shift without holding
it, shift is pressed for it.
"""

from pcanel.vmm_import import importable

with importable():
    from vmm.keyboard import KEYS, SHIFT, character, scan

_NAMES = {
    0xFF08: "backspace", 0xFF09: "tab", 0xFF0D: "enter", 0xFF1B: "esc", 0xFF50: "home", 0xFF51: "left", 0xFF52: "up",
    0xFF53: "right", 0xFF54: "down", 0xFF55: "pageup", 0xFF56: "pagedown", 0xFF57: "end", 0xFF63: "insert",
    0xFF8D: "enter", 0xFFE1: "shift", 0xFFE2: "shift", 0xFFE3: "ctrl", 0xFFE4: "ctrl", 0xFFE5: "capslock",
    0xFFE9: "alt", 0xFFEA: "alt", 0xFFFF: "delete",
    **{0xFFBE + n: f"f{n + 1}" for n in range(12)},
}  # fmt: skip
_KEYPAD = {0xFFAA: "*", 0xFFAB: "+", 0xFFAD: "-", 0xFFAE: ".", 0xFFAF: "/", **{0xFFB0 + n: str(n) for n in range(10)}}

_WHEEL_AWAY, _WHEEL_TOWARDS = 8, 16
_HELD = ((1, 1), (2, 4), (4, 2))  # RFB's left, middle, right and the mouse's


def _scan_code(keysym: int) -> tuple[int, bool] | None:
    """(scan code, whether it needs shift); None for a key that the keyboard does not have."""
    if keysym in _NAMES:
        return KEYS[_NAMES[keysym]], False
    text = _KEYPAD.get(keysym) or (chr(keysym) if 0x20 <= keysym < 0x7F else "")
    return character(text) if text else None


class Hand:
    """Collects events until take()."""

    def __init__(self):
        self._codes: list[int] = []
        self._down: dict[int, list[int]] = {}  # keysym: what releases it
        self._moves: list[list[int]] = []  # dx, dy, dz, buttons
        self._place: tuple[int, int] | None = None

    def key(self, down: int, keysym: int) -> None:
        if not down:
            self._codes += self._down.pop(keysym, [])
            return
        found = _scan_code(keysym)
        if found is None:
            return
        code, shifted = found
        shift = shifted and not any(_NAMES.get(other) == "shift" for other in self._down)
        if keysym not in self._down:  # else it repeats
            self._codes += scan(SHIFT, False) if shift else []
        self._codes += scan(code, False)
        self._down[keysym] = scan(code, True) + (scan(SHIFT, True) if shift else [])

    def pointer(self, buttons: int, x: int, y: int) -> None:
        old = self._place or (x, y)
        self._place = x, y
        dz = bool(buttons & _WHEEL_TOWARDS) - bool(buttons & _WHEEL_AWAY)
        held = sum(ours for theirs, ours in _HELD if buttons & theirs)
        if self._moves and self._moves[-1][3] == held:
            last = self._moves[-1]
            last[:3] = last[0] + x - old[0], last[1] + y - old[1], last[2] + dz
        else:
            self._moves.append([x - old[0], y - old[1], dz, held])

    def take(self) -> tuple[list[int], list[list[int]]]:
        """(scan codes, movements) since the last time."""
        found = self._codes, self._moves
        self._codes, self._moves = [], []
        return found
