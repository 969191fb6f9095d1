"""A PS/2 mouse with five buttons and a wheel (IBM PS/2 Hardware Interface Technical Reference, "Mouse"; the wheel and
the two more buttons as in Microsoft's IntelliMouse: drivers enable them by three sample rates in a row).

Movements wait in a bounded queue until the guest has read the packets before. Scaling and resolution are stored and
reported, but have no effect.
"""

from micropython import const

from vmm.devices import saved

_ACK = const(0xFA)
_RESEND = const(0xFE)
_TESTED = const(0xAA)

# Commands
_RESET = const(0xFF)
_RESET_WRAP = const(0xEC)

_ALWAYS = const(0x08)  # in a packet's first byte
_MOST = const(255)  # of a movement in a packet
_WHEEL_MOST = const(7)
_WAITING_MOST = const(64)
_RATE_MOST = const(200)
_PLAIN, _WHEEL, _FIVE_BUTTONS = const(0), const(3), const(4)  # identities
_SEQUENCES = (((200, 100, 80), _PLAIN, _WHEEL), ((200, 200, 80), _WHEEL, _FIVE_BUTTONS))  # (rates, before, after)

_SAVED = (
    "_identity", "_rate", "_rates", "_resolution", "_double", "_remote", "_wrap", "_reporting", "_argument",
    "_buttons", "_waiting",
)  # fmt: skip


class Ps2Mouse:
    """put(byte) sends to the controller; free(): whether its queue is empty and the mouse interface enabled."""

    def __init__(self, put, free):
        self._put = put
        self._free = free
        self.reset()

    def reset(self):
        """Power-on state: reporting is off."""
        self._waiting = []  # [dx, dy, dz, buttons], the oldest first
        self._buttons = 0  # as last reported, or waiting to be
        self._wrap = False
        self._argument = 0  # the command that takes the next byte
        self._identity = _PLAIN
        self._defaults()

    def _defaults(self):
        self._rate = 100
        self._rates = [0, 0, 0]  # the last three that were set
        self._resolution = 2
        self._double = False
        self._remote = False
        self._reporting = False

    def save(self):
        state = saved.save(self, _SAVED)
        state["_waiting"] = [list(entry) for entry in self._waiting]
        return state

    def load(self, state):
        saved.load(self, _SAVED, state)
        self._waiting = [list(entry) for entry in self._waiting]

    # -- movements and buttons

    def event(self, dx, dy, dz, buttons):
        """Report a movement by dx to the right and dy down, of the wheel by dz towards the user, and the buttons held:
        bit 0 left, 1 right, 2 middle, 3 and 4 the others. False if the queue is full: the event is lost."""
        if not (self._reporting or self._remote):
            self._buttons = buttons
            return True
        waiting = self._waiting
        if waiting and waiting[-1][3] == buttons:
            last = waiting[-1]
            last[0], last[1], last[2] = last[0] + dx, last[1] + dy, last[2] + dz
        elif len(waiting) < _WAITING_MOST:
            waiting.append([dx, dy, dz, buttons])
        else:
            return False
        self._buttons = buttons
        self.go_on()
        return True

    @property
    def buttons(self):
        """The buttons held, bits as in event()."""
        return self._buttons

    def go_on(self):
        """Send the next packet, if the controller takes it."""
        if self._waiting and self._reporting and not self._remote and not self._wrap and self._free():
            self._packet()

    def _packet(self):
        """Send the next packet. A movement that is too large for one is split."""
        dx, dy, dz, buttons = self._waiting[0] if self._waiting else (0, 0, 0, self._buttons)
        some = _part(dx, _MOST), _part(dy, _MOST), _part(dz, _WHEEL_MOST)
        if self._waiting:
            rest = [dx - some[0], dy - some[1], dz - some[2], buttons]
            if self._identity == _PLAIN:
                rest[2] = 0
            if any(rest[:3]):
                self._waiting[0] = rest
            else:
                self._waiting.pop(0)
        x, y = some[0], -some[1]  # upwards is positive here
        self._put(_ALWAYS | buttons & 7 | (0x10 if x < 0 else 0) | (0x20 if y < 0 else 0))
        self._put(x & 0xFF)
        self._put(y & 0xFF)
        if self._identity == _WHEEL:
            self._put(some[2] & 0xFF)
        elif self._identity == _FIVE_BUTTONS:
            self._put(some[2] & 0x0F | (buttons & 0x18) << 1)

    # -- commands of the guest

    def command(self, value):
        """A byte from the controller."""
        argument, self._argument = self._argument, 0
        if self._wrap and value not in (_RESET, _RESET_WRAP):
            self._put(value)
            return
        if argument and value <= _RATE_MOST:
            self._put(_ACK)
            if argument == 0xF3:
                self._set_rate(value)
            else:
                self._resolution = value & 3
            return
        if value < 0xE6 or value in (0xED, 0xEF, 0xF1) or 0xF7 <= value <= 0xFD:
            self._put(_RESEND)
            return
        self._put(_ACK)
        if value in (0xE6, 0xE7):
            self._double = value == 0xE7
        elif value in (0xE8, 0xF3):
            self._argument = value
        elif value == 0xE9:
            self._status()
        elif value == 0xEA:
            self._remote = False
        elif value == 0xEB:
            self._packet()
        elif value in (_RESET_WRAP, 0xEE):
            self._wrap = value == 0xEE
        elif value == 0xF0:
            self._remote = True
        elif value == 0xF2:
            self._put(self._identity)
        elif value in (0xF4, 0xF5):
            self._reporting = value == 0xF4
            self._waiting = []
        elif value == 0xF6:
            self._defaults()
        elif value == _RESET:
            self.reset()
            self._put(_TESTED)
            self._put(_PLAIN)

    def _set_rate(self, value):
        self._rate = value
        self._rates = [self._rates[1], self._rates[2], value]
        for rates, before, after in _SEQUENCES:
            if tuple(self._rates) == rates and self._identity == before:
                self._identity = after

    def _status(self):
        b = self._buttons
        flags = (0x40 if self._remote else 0) | (0x20 if self._reporting else 0) | (0x10 if self._double else 0)
        self._put(flags | (b & 1) << 2 | (b & 4) >> 1 | (b & 2) >> 1)
        self._put(self._resolution)
        self._put(self._rate)


def _part(distance, most):
    return max(-most, min(distance, most))
