"""A guest's screen for the prompt: the VGA's text page in its memory as text, which its console has too where its file
asks for it, or which mode with graphics is on. Pictures are drawn on the host (host-tools/pcanel/screen).
"""

from micropython import const

BASE = const(0xB8000)
SIZE = const(0x8000)  # addresses wrap at its end
BLANK = b" \x07"
_ROWS_MOST = const(60)
_COLUMNS_MOST = const(132)
_LOOKS = const(10)  # a second
_ESCAPE = "\x1b"

# Code page 437, but for ASCII.
_LOW = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_HIGH = (
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐"
    "└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ "
)


def _character(code):
    if code < 32:
        return _LOW[code]
    if code < 127:
        return chr(code)
    return _HIGH[code - 128] if code > 127 else "⌂"


def blank(memory):
    """The page as a BIOS leaves it: 25 rows of 80 grey blanks."""
    if memory.size >= BASE + SIZE:
        for row in range(25):
            memory.write(BASE + 160 * row, BLANK * 80)


def of(memory, vga):
    """A Screen, or Graphics where a mode with graphics is on."""
    return Screen(memory, vga) if vga.graphics is None else Graphics(*vga.graphics)


class Graphics:
    """A screen in a mode with graphics: width and height in pixels, bits of each (4: planes). It has no text."""

    rows = columns = 0
    cursor = None
    text = ()

    def __init__(self, width, height, bits):
        self.width = width
        self.height = height
        self.bits = bits

    def __repr__(self):
        return "<graphics of %d x %d, %d bits a pixel: vm.screenshot(FILE) shows it>" % (
            self.width, self.height, self.bits,
        )  # fmt: skip


class Screen:
    """The screen's contents. cursor: (row, column), None where it is off or elsewhere."""

    def __init__(self, memory, vga):
        self.rows = (vga.crtc(0x12) | vga.crtc(0x07) << 7 & 0x100 | vga.crtc(0x07) << 3 & 0x200) + 1
        self.rows = min(self.rows // ((vga.crtc(0x09) & 31) + 1) or 1, _ROWS_MOST)
        self.columns = min(vga.crtc(0x01) + 1, _COLUMNS_MOST)
        self._start = vga.crtc(0x0C) << 8 | vga.crtc(0x0D)
        self._pitch = 2 * vga.crtc(0x13) or self.columns
        self._memory = memory
        self.cursor = None
        place = (vga.crtc(0x0E) << 8 | vga.crtc(0x0F)) - self._start
        if not vga.crtc(0x0A) & 0x20 and 0 <= place < self.rows * self._pitch and place % self._pitch < self.columns:
            self.cursor = place // self._pitch, place % self._pitch

    @property
    def text(self):
        """The rows."""
        return [self.row(n) for n in range(self.rows)]

    def cells(self, n):
        """Row n as bytes: character and attribute by turns."""
        at = 2 * (self._start + n * self._pitch) % SIZE
        size = 2 * self.columns
        if self._memory.size < BASE + SIZE:
            return bytes(size)
        if at + size <= SIZE:
            return self._memory.read(BASE + at, size)
        return self._memory.read(BASE + at, SIZE - at) + self._memory.read(BASE, size - SIZE + at)

    def row(self, n):
        """Row n as str, without blanks at its end."""
        cells = self.cells(n)
        return "".join([_character(cells[at]) for at in range(0, len(cells), 2)]).rstrip()

    def __repr__(self):
        return "\n".join(self.text)


class Mirror:
    """The screen of a VM on its console, ten times a second: rows that changed, by the terminal's cursor addressing.

    It keeps the cells that the terminal shows, so it exists only where a guest's file asks for it. Where the console
    has no room, the rest of a row waits for the next pass.
    """

    def __init__(self, vm, vga):
        self._vm = vm
        self._vga = vga
        self._waiting = b""
        self._timer = vm.clock.timer(self._look)
        self.reset()

    def reset(self):
        """A blank screen, not yet shown."""
        self._shown = []
        self._cursor = None
        self._timer.arm(self._vm.clock.now() + self._vm.clock.hz // _LOOKS)

    def _look(self, now):
        self._timer.arm(now + self._vm.clock.hz // _LOOKS)
        if not self._send():
            return
        screen = of(self._vm.memory, self._vga)
        if len(self._shown) != screen.rows:
            self._shown = [BLANK * screen.columns] * screen.rows
        for n in range(screen.rows):
            cells = screen.cells(n)
            if cells != self._shown[n]:
                self._shown[n] = cells
                self._cursor = None
                self._waiting = ("%s[%d;1H%s%s[K" % (_ESCAPE, n + 1, screen.row(n), _ESCAPE)).encode()
                if not self._send():
                    return
        if screen.cursor and screen.cursor != self._cursor:
            self._cursor = screen.cursor
            self._waiting = ("%s[%d;%dH" % (_ESCAPE, screen.cursor[0] + 1, screen.cursor[1] + 1)).encode()
            self._send()

    def _send(self):
        """Send what waits; True when all is sent."""
        tx = self._vm.console.tx
        data = self._waiting
        for at in range(len(data)):
            if not tx(data[at]):
                self._waiting = data[at:]
                return False
        self._waiting = b""
        return True
