"""Keyboard controller 8042 with a keyboard (vmm/keyboard.py types on it), and optionally a mouse
(vmm/devices/ps2_mouse.py). Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
Controller".

Answers are ready at once, so a probe never waits. A byte for a missing mouse comes back as FEh
with the time-out bit, which ends the search for one.
"""

from micropython import const

from vmm.devices import saved
from vmm.devices.ps2_mouse import Ps2Mouse

_STATUS = const(4)

_OBF = const(0x01)
_SYSTEM = const(0x04)
_COMMAND = const(0x08)
_UNLOCKED = const(0x10)
_AUX_OBF = const(0x20)
_TIMEOUT = const(0x40)

# Command byte
_IRQ1 = const(0x01)
_IRQ12 = const(0x02)
_SELF_TESTED = const(0x04)
_KBD_OFF = const(0x10)
_AUX_OFF = const(0x20)
_TRANSLATE = const(0x40)

PULSE = const(0xF0)  # the command: pulse those of the output port's low bits that are clear in it

# Output port
NOT_RESET = const(0x01)
_A20 = const(0x02)

_QUEUE = const(16)

# The codes of set 2 for set 1's codes 01h to 58h. The keyboard sends set 2, the controller translates to set 1.
_SET_2 = (
    b"\x76\x16\x1e\x26\x25\x2e\x36\x3d\x3e\x46\x45\x4e\x55\x66\x0d\x15\x1d\x24\x2d\x2c\x35\x3c\x43\x44\x4d\x54"
    b"\x5b\x5a\x14\x1c\x1b\x23\x2b\x34\x33\x3b\x42\x4b\x4c\x52\x0e\x12\x5d\x1a\x22\x21\x2a\x32\x31\x3a\x41\x49"
    b"\x4a\x59\x7c\x11\x29\x58\x05\x06\x04\x0c\x03\x0b\x83\x0a\x01\x09\x77\x7e\x6c\x75\x7d\x7b\x6b\x73\x74\x79"
    b"\x69\x72\x7a\x70\x71\x84\x60\x61\x78\x07"
)
_BREAK = const(0xF0)  # prefix of set 2's code of a key that is released
_FROM_AUX = const(0x100)
_FAILED = const(0x200)


_SAVED = ("_queue", "_head", "_count", "_mode", "_output", "_pending", "_argument", "_scanning", "_status", "ram")


def _ignore(_):
    """An output that leads nowhere."""


class I8042:
    """Offset 0 the data port (60h), 4 status and command (64h).

    `irq1(level)`, `irq12(level)`; `reset_cpu()` for the pulse on output bit 0; `a20(on)` for bit 1. mouse: whether a
    mouse is connected; then `mouse` is a Ps2Mouse, else None.
    """

    def __init__(self, irq1, irq12, reset_cpu, a20=_ignore, mouse=False):
        self.irq1 = irq1
        self.irq12 = irq12
        self.reset_cpu = reset_cpu
        self.a20 = a20
        self._queue = [0] * _QUEUE  # bytes to be read, with _FROM_AUX and _FAILED
        self._levels = 0
        self.mouse = Ps2Mouse(self._from_mouse, self._takes_mouse) if mouse else None
        self.reset()

    def reset(self):
        """As firmware leaves it: tested, translating, both interrupts off, A20 open."""
        self._head = self._count = 0
        self._mode = _SELF_TESTED | _TRANSLATE | _AUX_OFF
        self._output = NOT_RESET | _A20
        self._pending = 0  # the command that takes the next data byte
        self._argument = 0  # the keyboard command that takes the next keyboard byte
        self._scanning = True  # keys are sent
        self._status = _SYSTEM | _UNLOCKED
        self.ram = bytearray(32)
        if self.mouse:
            self.mouse.reset()
        self._drive()

    def save(self):
        state = saved.save(self, _SAVED)
        state["mouse"] = self.mouse.save() if self.mouse else None
        return state

    def load(self, state):
        saved.need(self, ("mouse",) if self.mouse else (), state)
        output = self._output
        saved.load(self, _SAVED, state)
        if self.mouse:
            self.mouse.load(state["mouse"])
        if (output ^ self._output) & _A20:
            self.a20(self._output >> 1 & 1)
        self._drive()

    def read(self, offset, size):
        """Data or status; both ports are a byte wide."""
        if offset == 0:
            return self._take()
        if offset == _STATUS:
            return self._look()
        return 0xFF

    def write(self, offset, size, value):
        """A controller command at offset 4, its argument or a byte for the keyboard at offset 0."""
        value &= 0xFF
        if offset == _STATUS:
            self._status |= _COMMAND
            self._pending = 0
            self._control(value)
        elif offset == 0:
            self._status &= ~_COMMAND
            command = self._pending
            self._pending = 0
            if command:
                self._data(command, value)
            else:
                self._keyboard(value)
        self._drive()

    @property
    def idle(self):
        """Whether the guest has read all bytes and has the keyboard enabled."""
        return not self._count and not self._mode & _KBD_OFF and self._scanning

    def key(self, code):
        """A byte of a scan code of set 1 arrives from the keyboard. Without translation it is queued as set 2's. It is
        lost if the queue is full."""
        code &= 0xFF
        if self._mode & _TRANSLATE or not 0 < code & 0x7F <= len(_SET_2):
            self._put(code)
        else:
            if code & 0x80:
                self._put(_BREAK)
            self._put(_SET_2[(code & 0x7F) - 1])
        self._drive()

    def _from_mouse(self, byte):
        self._put(byte | _FROM_AUX)
        self._drive()

    def _takes_mouse(self):
        """Whether the guest has read all bytes and has the mouse enabled."""
        return not self._count and not self._mode & _AUX_OFF

    def _look(self):
        """The status, with OBF, AUX and time-out of the byte at the head of the queue."""
        status = self._status
        if self._count:
            entry = self._queue[self._head]
            status |= _OBF
            if entry & _FROM_AUX:
                status |= _AUX_OBF
            if entry & _FAILED:
                status |= _TIMEOUT
        return status

    def _take(self):
        entry = self._queue[self._head]
        if self._count:
            self._count -= 1
            self._head = (self._head + 1) % _QUEUE
            # Lower the line first: each byte is an edge.
            self._fall()
            if self.mouse and not self._count:
                self.mouse.go_on()
            self._drive()
        return entry & 0xFF

    def _put(self, entry):
        if self._count < _QUEUE:
            self._queue[(self._head + self._count) % _QUEUE] = entry
            self._count += 1

    def _fall(self):
        if self._levels & 1:
            self.irq1(0)
        if self._levels & 2:
            self.irq12(0)
        self._levels = 0

    def _drive(self):
        """IRQ1 or IRQ12 while a byte waits, as the command byte allows."""
        levels = 0
        if self._count:
            aux = self._queue[self._head] & _FROM_AUX
            if aux and self._mode & _IRQ12:
                levels = 2
            elif not aux and self._mode & _IRQ1:
                levels = 1
        changed = levels ^ self._levels
        self._levels = levels
        if changed & 1:
            self.irq1(levels & 1)
        if changed & 2:
            self.irq12(levels >> 1)

    def _control(self, command):
        if 0x20 <= command < 0x40:
            self._put(self.ram[command & 31] if command & 31 else self._mode)
        elif 0x60 <= command < 0x80 or 0xD1 <= command <= 0xD4:
            self._pending = command
        elif command == 0xA7:
            self._mode |= _AUX_OFF
        elif command == 0xA8:
            self._mode &= ~_AUX_OFF
            if self.mouse:
                self.mouse.go_on()
        elif command == 0xA9:
            self._put(0)  # the auxiliary interface passes its test, with a mouse or without
        elif command == 0xAA:
            self._head = self._count = 0
            self._mode |= _SELF_TESTED
            self._put(0x55)
        elif command == 0xAB:
            self._put(0)
        elif command == 0xAD:
            self._mode |= _KBD_OFF
        elif command == 0xAE:
            self._mode &= ~_KBD_OFF
        elif command == 0xC0:
            self._put(0x80)  # input port: keyboard not locked
        elif command == 0xD0:
            self._put(self._output | (0x10 if self._count else 0))
        elif command >= PULSE and not command & NOT_RESET:
            self.reset_cpu()  # pulses the output bits that are 0

    def _data(self, command, value):
        """The data byte of a pending `command`."""
        if command == 0x60:
            self._mode = value & 0x7F
            if self.mouse:
                self.mouse.go_on()
        elif command < 0x80:
            self.ram[command & 31] = value
        elif command == 0xD1:
            changed = self._output ^ value
            self._output = value
            if changed & _A20:
                self.a20(value >> 1 & 1)
            if not value & NOT_RESET:
                self.reset_cpu()
        elif command == 0xD2:
            self._put(value)
        elif command == 0xD3:
            self._put(value | _FROM_AUX)
        elif self.mouse:
            self.mouse.command(value)
        else:
            self._put(0xFE | _FROM_AUX | _FAILED)

    def _keyboard(self, value):
        """A byte for the keyboard."""
        self._mode &= ~_KBD_OFF
        argument = self._argument
        self._argument = 0
        if argument and value < 0x80:
            self._put(0xFA)
            if argument == 0xF0 and value == 0:
                self._put(0x41 if self._mode & _TRANSLATE else 2)  # scan code set 2
            return
        if value == 0xEE:
            self._put(0xEE)
            return
        if value < 0xED:
            self._put(0xFE)
            return
        self._put(0xFA)
        if value in (0xF4, 0xF5, 0xF6, 0xFF):
            self._scanning = value != 0xF5
        if value == 0xFF:
            self._put(0xAA)
        elif value == 0xF2:
            self._put(0xAB)
            self._put(0x41 if self._mode & _TRANSLATE else 0x83)
        elif value in (0xED, 0xF0, 0xF3):
            self._argument = value
