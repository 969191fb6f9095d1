"""VGA: CRT controller, sequencer, graphics and attribute controllers, palette (IBM PS/2 Hardware Interface
Technical Reference, "Video Subsystem").

The text is in the guest's RAM from B8000h on, so that writing it causes no exit. vmm/screen.py renders it by the
registers, which start with a BIOS's values of mode 3, 80 columns and 25 rows in colour. The retrace bits follow the
clock, 70 frames of 449 lines a second. The 64 KiB at A0000h are the guest's RAM, too: plane 2 with the font for guests
that load one, the pixels of mode 13h. A display on PCI adds modes with a framebuffer (vmm/devices/bochs_vbe.py).
Limits: no other planes, so no graphics of 16 colours; no monochrome addresses.
"""

from vmm.devices import saved

# Offsets from 3C0h.
_ATTRIBUTE = 0x00
_ATTRIBUTE_DATA = 0x01
_MISC = 0x02  # input status 0 on read
_ENABLE = 0x03
_SEQUENCER = 0x04
_DAC_MASK = 0x06
_DAC_READ = 0x07  # state on read
_DAC_WRITE = 0x08
_DAC_DATA = 0x09
_FEATURE = 0x0A
_MISC_READ = 0x0C
_GRAPHICS = 0x0E
_CRTC = 0x14
_STATUS = 0x1A  # feature control on write

# Indexed registers in `state`: (first byte, how many) of the index port's block.
_AT = {_SEQUENCER: (0, 5), _GRAPHICS: (5, 9), _CRTC: (14, 25), _ATTRIBUTE: (39, 21)}
_MODE_3 = (
    b"\x03\x00\x03\x00\x02"
    b"\x00\x00\x00\x00\x00\x10\x0e\x00\xff"
    b"\x5f\x4f\x50\x82\x55\x81\xbf\x1f\x00\x4f\x0d\x0e\x00\x00\x00\x00\x9c\x8e\x8f\x28\x1f\x96\xb9\xa3\xff"
    b"\x00\x01\x02\x03\x04\x05\x14\x07\x38\x39\x3a\x3b\x3c\x3d\x3e\x3f\x0c\x00\x0f\x08\x00"
)
_CRTC_BASE = 14
_ATTRIBUTE_BASE = 39
_MEMORY_MODE = 4  # of the sequencer
_CHAIN_4 = 0x08
_GRAPHICS_MISC = _AT[_GRAPHICS][0] + 6
_GRAPHICS_MODE = 0x01
_PROTECT = 0x80  # in CRTC register 11h: 0 to 7 are not written
_OVERFLOW = 7
_LINE_COMPARE_8 = 0x10  # the one bit of the overflow register that _PROTECT does not protect

# Behind them in `state`.
_INDEX = {_SEQUENCER: 60, _GRAPHICS: 61, _CRTC: 62, _ATTRIBUTE: 63}
_MISC_AT = 64
_FEATURE_AT = 65
_DATA_NEXT = 66  # the attribute controller's one port takes index and data in turn
_MASK_AT = 67
_READING = 68
_COLOUR = 69  # index of the next byte of the palette, 16 bits
_MORE = b"\0\0\0\x20\x67\0\0\xff\0\0\0"

STATE = len(_MODE_3 + _MORE)  # bytes
PALETTE = 768

_FRAMES = 70  # a second
_LINES = 449
_SHOWN = 400


class Vga:
    """Offsets from 3C0h: 0 to Fh, 14h and 15h, 1Ah. `state`: the indexed registers, at a fixed address for viewers.
    vbe: a vmm.devices.bochs_vbe.BochsVbe, or None."""

    def __init__(self, clock):
        self.clock = clock
        self.vbe = None
        self.state = bytearray(STATE)
        self._colour_mask = 0x3F
        self.reset()

    def reset(self):
        """Mode 3, the cursor at the start of the page."""
        self.state[:] = _MODE_3 + _MORE
        self.palette = None  # 768 bytes once the guest has written one

    def save(self):
        """The text is the guest's RAM."""
        return {"state": bytes(self.state), "palette": None if self.palette is None else bytes(self.palette)}

    def load(self, state):
        saved.need(self, ("state", "palette"), state)
        saved.fill(self, "state", self.state, state["state"])
        palette = state["palette"]
        self.palette = None if palette is None else bytearray(palette)

    def colour_bits(self, wide):
        """Whether the palette takes 8 bits a colour instead of 6."""
        self._colour_mask = 0xFF if wide else 0x3F

    @property
    def graphics(self):
        """(width, height, bits a pixel) of a graphics mode, 4 bits for one with planes; None in a text mode."""
        if self.vbe is not None and self.vbe.on:
            return self.vbe.mode[:3]
        if not self.state[_GRAPHICS_MISC] & _GRAPHICS_MODE:
            return None
        if self.state[_MEMORY_MODE] & _CHAIN_4:
            return 320, 200, 8
        height = (self.crtc(0x12) | self.crtc(0x07) << 7 & 0x100 | self.crtc(0x07) << 3 & 0x200) + 1
        return 8 * (self.crtc(0x01) + 1), height, 4

    def crtc(self, n):
        """Register n (0 to 18h) of the CRT controller."""
        return self.state[_CRTC_BASE + n]

    def sequencer(self, n):
        """Register n (0 to 4) of the sequencer."""
        return self.state[n]

    def attribute(self, n):
        """Register n (0 to 14h) of the attribute controller."""
        return self.state[_ATTRIBUTE_BASE + n]

    def set_crtc(self, n, value):
        self.state[_CRTC_BASE + n] = value & 0xFF

    def read(self, offset, size):
        """The register at `offset`, a byte."""
        s = self.state
        if offset == _STATUS:
            s[_DATA_NEXT] = 0
            return self._retrace()
        if offset in _INDEX:
            return s[_INDEX[offset]]
        if offset == _ATTRIBUTE_DATA:
            return self._indexed(_ATTRIBUTE, s[_INDEX[_ATTRIBUTE]] & 0x1F)
        if offset - 1 in _INDEX:
            return self._indexed(offset - 1, s[_INDEX[offset - 1]])
        if offset == _MISC:
            return 0x10  # a colour monitor is attached
        if offset == _MISC_READ:
            return s[_MISC_AT]
        if offset == _ENABLE:
            return 1
        if offset == _FEATURE:
            return s[_FEATURE_AT]
        if offset == _DAC_MASK:
            return s[_MASK_AT]
        if offset == _DAC_READ:
            return 3 if s[_READING] else 0
        if offset == _DAC_WRITE:
            return self._colour(0) // 3
        if offset == _DAC_DATA:
            at = self._colour(1)
            return self.palette[at] if self.palette else 0
        return 0xFF

    def write(self, offset, size, value):
        """Sets the register at `offset`, a byte."""
        s = self.state
        if offset == _ATTRIBUTE:
            if s[_DATA_NEXT]:
                self._set(_ATTRIBUTE, s[_INDEX[_ATTRIBUTE]] & 0x1F, value)
            else:
                s[_INDEX[_ATTRIBUTE]] = value & 0x3F
            s[_DATA_NEXT] ^= 1
        elif offset in _INDEX:
            s[_INDEX[offset]] = value
        elif offset - 1 in _INDEX and offset != _ATTRIBUTE_DATA:
            self._set(offset - 1, s[_INDEX[offset - 1]], value)
        elif offset == _MISC:
            s[_MISC_AT] = value
        elif offset == _STATUS:
            s[_FEATURE_AT] = value
        elif offset == _DAC_MASK:
            s[_MASK_AT] = value
        elif offset == _DAC_READ or offset == _DAC_WRITE:
            s[_COLOUR], s[_COLOUR + 1] = 3 * value & 0xFF, 3 * value >> 8
            s[_READING] = offset == _DAC_READ
        elif offset == _DAC_DATA:
            if self.palette is None:
                self.palette = bytearray(PALETTE)
            self.palette[self._colour(1)] = value & self._colour_mask

    def _colour(self, step):
        """The index of the palette's next byte; advances it by `step`."""
        s = self.state
        at = s[_COLOUR] | s[_COLOUR + 1] << 8
        after = (at + step) % PALETTE
        s[_COLOUR], s[_COLOUR + 1] = after & 0xFF, after >> 8
        return at

    def _indexed(self, block, n):
        first, count = _AT[block]
        return self.state[first + n] if n < count else 0

    def _set(self, block, n, value):
        first, count = _AT[block]
        if n >= count:
            return
        if block == _CRTC and n <= _OVERFLOW and self.crtc(0x11) & _PROTECT:
            if n != _OVERFLOW:
                return
            value = self.crtc(n) & ~_LINE_COMPARE_8 | value & _LINE_COMPARE_8
        self.state[first + n] = value

    def _retrace(self):
        """Input status 1: bit 3 in the vertical retrace, bit 0 there and between lines."""
        place = self.clock.now() * _FRAMES % self.clock.hz * _LINES  # in lines, by hz
        if place >= _SHOWN * self.clock.hz:
            return 0x09
        return 0x01 if place % self.clock.hz * 5 >= 4 * self.clock.hz else 0x00
