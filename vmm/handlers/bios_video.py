"""INT 10h for a guest with BIOS services: text mode 3 in the VGA's text memory.

Limits: one page; no other modes, no graphics, no fonts, no VBE.
"""

import struct

from micropython import const

from vmm import bda
from vmm.screen import BASE, BLANK

_COLUMNS = const(80)
_ROWS = const(25)
_ROW_BYTES = const(160)
_GREY = const(7)


class Video:
    """The screen of one guest. memory: the guest's. vga: its VGA, whose cursor registers are kept up to date."""

    def __init__(self, memory, vga):
        self._memory = memory
        self._vga = vga

    def call(self, call):
        """INT 10h; False for an unsupported function."""
        vcpu = call.vcpu
        function = call.ah
        bx, cx, dx = vcpu.rbx & 0xFFFF, vcpu.rcx & 0xFFFF, vcpu.rdx & 0xFFFF
        row, column = self._cursor()
        if function == 0x00:
            if not call.al & 0x80:
                self.scroll(0, 0, 0, _ROWS - 1, _COLUMNS - 1, _GREY)
            self._move(0, 0)
        elif function == 0x01:
            self._memory.write_u16(bda.CURSOR_SHAPE, cx)
            self._vga.set_crtc(0x0A, cx >> 8)
            self._vga.set_crtc(0x0B, cx)
        elif function == 0x02:
            self._move(min(dx >> 8, _ROWS - 1), min(dx & 0xFF, _COLUMNS - 1))
        elif function == 0x03:
            call.put(cx=self._memory.read_u16(bda.CURSOR_SHAPE), dx=row << 8 | column)
        elif function in (0x06, 0x07):
            bottom, right = min(dx >> 8, _ROWS - 1), min(dx & 0xFF, _COLUMNS - 1)
            self.scroll(call.al if function == 6 else -call.al, cx >> 8, cx & 0xFF, bottom, right, bx >> 8)
        elif function == 0x08:
            call.ax = self._memory.read_u16(self._at(row, column))
        elif function in (0x09, 0x0A):
            self._repeat(row, column, call.al, bx & 0xFF if function == 9 else None, cx)
        elif function == 0x0E:
            self.put(call.al)
        elif function == 0x0F:
            call.ax = _COLUMNS << 8 | 3
            call.put(bx=bx & 0xFF)
        elif function == 0x11 and call.al == 0x30:
            call.put(cx=16, dx=dx & 0xFF00 | _ROWS - 1)
        elif function == 0x12 and bx & 0xFF == 0x10:
            call.put(bx=3, cx=9)  # colour, 256 KiB
        elif function == 0x13:
            self._string(call, bx, cx, dx)
        elif function == 0x1A and call.al == 0:
            call.al = 0x1A
            call.put(bx=8)  # VGA, a colour display
        elif function not in (0x05, 0x0B, 0x10):  # pages, overscan, palette: no visible effect
            return False
        return True

    @staticmethod
    def _at(row, column):
        return BASE + _ROW_BYTES * row + 2 * column

    def _cursor(self):
        place = self._memory.read_u16(bda.CURSOR)
        return min(place >> 8, _ROWS - 1), min(place & 0xFF, _COLUMNS - 1)

    def _move(self, row, column):
        self._memory.write_u16(bda.CURSOR, row << 8 | column)
        place = _COLUMNS * row + column
        self._vga.set_crtc(0x0E, place >> 8)
        self._vga.set_crtc(0x0F, place)

    def _repeat(self, row, column, character, attribute, count):
        at = self._at(row, column)
        for _ in range(min(count, _COLUMNS * _ROWS - _COLUMNS * row - column)):
            self._memory.write_u8(at, character)
            if attribute is not None:
                self._memory.write_u8(at + 1, attribute)
            at += 2

    def scroll(self, count, top, left, bottom, right, attribute):
        """Scroll a window up by `count` rows, down if it is negative; 0 clears the window."""
        height, width = bottom - top + 1, right - left + 1
        if height < 1 or width < 1:
            return
        if not -height < count < height:
            count = 0
        rows = list(range(top, bottom + 1))
        if count < 0:
            rows.reverse()
        blank = bytes((BLANK[0], attribute)) * width
        for i, row in enumerate(rows):
            data = blank
            if count and i < height - abs(count):
                data = self._memory.read(self._at(row + count, left), 2 * width)
            self._memory.write(self._at(row, left), data)

    def write(self, text):
        for character in text.encode():
            self.put(character)

    def put(self, character, attribute=None):
        """Write a character as a teletype does: control characters move the cursor, the last row scrolls."""
        row, column = self._cursor()
        if character == 7:
            return
        if character == 8:
            column = max(column - 1, 0)
        elif character == 13:
            column = 0
        elif character == 10:
            row += 1
        else:
            self._memory.write_u8(self._at(row, column), character)
            if attribute is not None:
                self._memory.write_u8(self._at(row, column) + 1, attribute)
            column += 1
            if column == _COLUMNS:
                row, column = row + 1, 0
        if row == _ROWS:
            row -= 1
            self.scroll(1, 0, 0, row, _COLUMNS - 1, _GREY)
        self._move(row, column)

    def _string(self, call, bx, cx, dx):
        """Write CX characters at ES:BP from row DH, column DL on; with AL bit 1, each is followed by its attribute."""
        vcpu = call.vcpu
        before = self._cursor()
        self._move(min(dx >> 8, _ROWS - 1), min(dx & 0xFF, _COLUMNS - 1))
        pairs = call.al & 2
        cx = min(cx, _COLUMNS * _ROWS)
        data = vcpu.peek(vcpu.segment("es")[1] + (vcpu.rbp & 0xFFFF), cx * (2 if pairs else 1))
        for i in range(cx):
            if pairs:
                self.put(*struct.unpack_from("BB", data, 2 * i))
            else:
                self.put(data[i], bx & 0xFF)
        if not call.al & 1:
            self._move(*before)
