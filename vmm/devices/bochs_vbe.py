"""The display interface of Bochs's VGA, which emulators and their guests call VBE dispi: a mode with a linear
framebuffer by eleven registers of 16 bits (Bochs, iodev/display/vga.h; QEMU, docs/specs/standard-vga).

The video memory is the guest's RAM and not here. A mode of 4 bits a pixel is refused, and so is one that does not fit:
ENABLE stays as it was. While a mode is on, its size and depth cannot be changed.
"""

from array import array

from micropython import const

from vmm.devices import saved

# Registers
ID = const(0)
XRES = const(1)
YRES = const(2)
BPP = const(3)
ENABLE = const(4)
BANK = const(5)
VIRT_WIDTH = const(6)
VIRT_HEIGHT = const(7)
X_OFFSET = const(8)
Y_OFFSET = const(9)
VIDEO_MEMORY_64K = const(10)
REGISTERS = const(11)
_INDEX = const(11)  # in `state`, behind them

# ENABLE
ENABLED = const(0x01)
GETCAPS = const(0x02)
_8BIT_DAC = const(0x20)
LFB_ENABLED = const(0x40)
_NOCLEARMEM = const(0x80)

_ID0 = const(0xB0C0)
_ID5 = const(0xB0C5)
_DEPTHS = (8, 15, 16, 24, 32)
BANK_SIZE = const(0x10000)
_XRES_MOST = const(2560)
_YRES_MOST = const(1600)
_BPP_MOST = const(32)


class BochsVbe:
    """Offset 0 the index (1CEh), 1 the data of the register that it selects (1CFh), 16 bits each.

    size: bytes of video memory; clear(size) zeroes its start; changed() is called when the mode, the bank, or the width
    of the DAC may have changed. `state`: the registers, and the index behind them, at a fixed address for viewers.
    """

    def __init__(self, size, clear, changed):
        self.size = size
        self._clear = clear
        self._changed = changed
        self.state = array("H", bytes(2 * (REGISTERS + 1)))
        self.state[ID] = _ID5

    def reset(self):
        """No mode."""
        for n in range(REGISTERS + 1):
            self.state[n] = 0
        self.state[ID] = _ID5
        self._changed()

    def save(self):
        return saved.save(self, ("state",))

    def load(self, state):
        saved.load(self, ("state",), state)
        self._changed()

    @property
    def on(self):
        """Whether a mode is on."""
        return bool(self.state[ENABLE] & ENABLED)

    @property
    def wide_dac(self):
        """Whether the palette has 8 bits a colour instead of 6."""
        return bool(self.state[ENABLE] & _8BIT_DAC)

    @property
    def mode(self):
        """(width, height, bits a pixel, bytes a line, offset of the first line)."""
        s = self.state
        line = _line(s[VIRT_WIDTH], s[BPP])
        return s[XRES], s[YRES], s[BPP], line, s[Y_OFFSET] * line + _line(s[X_OFFSET], s[BPP])

    def read(self, offset, size):
        return self.state[_INDEX] if offset == 0 else self.register(self.state[_INDEX])

    def write(self, offset, size, value):
        if offset == 0:
            self.state[_INDEX] = value
        else:
            self.set(self.state[_INDEX], value)

    def register(self, n):
        """The value of register n."""
        s = self.state
        if n == VIDEO_MEMORY_64K:
            return self.size // BANK_SIZE
        if s[ENABLE] & GETCAPS and XRES <= n <= BPP:
            return (_XRES_MOST, _YRES_MOST, _BPP_MOST)[n - XRES]
        return s[n] if n < REGISTERS else 0

    def set(self, n, value):
        """Write register n."""
        s = self.state
        if n == ID:
            if _ID0 <= value <= _ID5:
                s[ID] = value
        elif n == ENABLE:
            self._enable(value)
        elif XRES <= n <= BPP:
            if not self.on:
                s[n] = value
        elif not self.on:
            return
        elif n == BANK:
            if (value + 1) * BANK_SIZE <= self.size:
                s[BANK] = value
                self._changed()
        elif n == VIRT_WIDTH:
            self._widen(max(value, s[XRES]))
        elif n == X_OFFSET:
            s[X_OFFSET] = min(value, s[VIRT_WIDTH] - s[XRES])
        elif n == Y_OFFSET:
            s[Y_OFFSET] = min(value, s[VIRT_HEIGHT] - s[YRES])

    def _enable(self, value):
        s = self.state
        if value & ENABLED and not self.on:
            if not self._fits():
                return
            self._widen(s[XRES])
            s[BANK] = 0
            if not value & _NOCLEARMEM:
                self._clear(s[YRES] * _line(s[XRES], s[BPP]))
        s[ENABLE] = value
        self._changed()

    def _fits(self):
        s = self.state
        if s[BPP] not in _DEPTHS or not 0 < s[XRES] <= _XRES_MOST or not 0 < s[YRES] <= _YRES_MOST:
            return False
        return s[YRES] * _line(s[XRES], s[BPP]) <= self.size

    def _widen(self, width):
        """Set VIRT_WIDTH to `width` pixels, if YRES lines of that width fit."""
        s = self.state
        height = min(self.size // _line(width, s[BPP]), 0xFFFF)
        if height >= s[YRES]:
            s[VIRT_WIDTH], s[VIRT_HEIGHT] = width, height
            s[X_OFFSET] = s[Y_OFFSET] = 0


def _line(pixels, bits):
    """Bytes of a line of `pixels` pixels, `bits` each."""
    return pixels * (bits + 7 >> 3)
