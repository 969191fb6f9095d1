"""A NOR flash chip, one byte wide, with Intel's basic command set. Firmware keeps its variables in it.

In array mode the CPU reads it as memory. Any write is a command; after it, reads return the status register or the
chip's identity. Commands take no time. A program cycle sets a byte to its value, also bits that were 0, as QEMU's chip
does, for which firmware of virtual machines is made. Source: Intel 28F640J3 data sheet, "Command Definitions"; JEDEC
JEP137, 0001h.
"""

from array import array

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices import saved

BLOCK = const(0x1000)  # bytes that are erased together

# Commands, and second cycles
_READ_ARRAY = const(0xFF)
_READ_STATUS = const(0x70)
_CLEAR_STATUS = const(0x50)
_READ_IDENTITY = const(0x90)
_PROGRAM = const(0x40)
_PROGRAM_TOO = const(0x10)
_ERASE = const(0x20)
_CONFIRM = const(0xD0)

_READY = const(0x80)  # status
_IDENTITY = (0x89, 0x17)  # Intel, 28F640
_BAD_SEQUENCE = const(0xB0)  # ready; erase and program have failed

_SAVED = ("_command", "_status", "_answers")
_ARRAY = const(0)  # what reads return
_STATUS = const(1)
_NAME = const(2)

# Words of the chip
_ANSWERS = const(0)
_COMMAND = const(1)  # the first cycle of a command of two cycles, else 0
_REGISTER = const(2)
_WORDS = const(3)


def _word(n):
    """A property that is word n."""

    def read(chip):
        return chip.words[n]

    def write(chip, value):
        chip.words[n] = value

    return property(read, write)


class Flash:
    """data: the contents, a buffer of whole blocks.

    direct(on): whether the CPU may read the contents as memory: off at the first command, on at the next read in array
    mode rather than at once, since commands come in hundreds. changed(offset, size): these bytes have been programmed
    or erased. ended(): the chip is in array mode again. refused(what) counts. write(offset, size, value): each byte is
    one cycle of a command.
    """

    _answers = _word(_ANSWERS)
    _command = _word(_COMMAND)
    _status = _word(_REGISTER)

    def __init__(self, data, direct, changed, ended, refused):
        self._data = data
        self._set_direct = direct
        self._changed = changed
        self._ended = ended
        self._refused = refused
        self._direct = True
        self.words = array("I", [0] * _WORDS)
        words, content = uctypes.addressof(self.words), uctypes.addressof(data)
        self.write = bind(_write, words, content, changed, bind(Flash._write, self))

    def reset(self):
        """Power-on; the contents stay."""
        self._command = self._status = 0
        self._answer(_ARRAY)

    def _answer(self, what):
        before, self._answers = self._answers, what
        if what != _ARRAY:
            self._read_directly(False)
        elif before != _ARRAY:
            self._ended()

    def _read_directly(self, on):
        if on != self._direct:
            self._direct = on
            self._set_direct(on)

    def read(self, offset, size):
        if self._answers == _ARRAY:
            self._read_directly(True)
            return int.from_bytes(self._data[offset : offset + size], "little")
        value = self._status
        if self._answers == _NAME:
            value = _IDENTITY[offset & 1]
        return int.from_bytes(bytes([value] * size), "little")

    def _write(self, offset, size, value):
        """The slow path of _write() below."""
        for at in range(offset, offset + size):
            self._cycle(at, value & 0xFF)
            value >>= 8

    def _cycle(self, at, value):
        command, self._command = self._command, 0
        if command == _PROGRAM or command == _PROGRAM_TOO:
            self._data[at] = value
            self._status |= _READY
            self._changed(at, 1)
        elif command == _ERASE and value == _CONFIRM:
            at &= ~(BLOCK - 1)
            self._data[at : at + BLOCK] = b"\xff" * BLOCK
            self._status |= _READY
            self._changed(at, BLOCK)
        elif command:
            self._status |= _BAD_SEQUENCE
        elif value == _READ_ARRAY:
            self._answer(_ARRAY)
            return
        elif value in (_PROGRAM, _PROGRAM_TOO, _ERASE):
            self._command = value
        elif value == _CLEAR_STATUS:
            self._status = 0
        elif value == _READ_IDENTITY:
            self._answer(_NAME)
            return
        elif value != _READ_STATUS:
            self._refused("command to the firmware's flash")
            return
        self._answer(_STATUS)

    # -- state as data, without the contents, which the caller owns

    def save(self):
        """Plain data."""
        return saved.save(self, _SAVED)

    def load(self, state):
        before = self._answers
        saved.load(self, _SAVED, state)
        now, self._answers = self._answers, before
        self._answer(now)


# A byte is programmed by two cycles, a variable by thousands of them. In bytecode each would take 6,000 ticks more.
@micropython.viper
def _write(words: ptr32, data: ptr8, changed, slowly, offset: int, size: int, value: int):
    """The two cycles of programming a byte, where reads return the status already; slowly() has all other cases."""
    if size == 1 and words[_ANSWERS] == _STATUS:
        command = int(words[_COMMAND])
        if command == _PROGRAM or command == _PROGRAM_TOO:
            words[_COMMAND] = 0
            words[_REGISTER] = int(words[_REGISTER]) | _READY
            data[offset] = value
            changed(offset, 1)
            return
        if command == 0:
            if value == _PROGRAM or value == _PROGRAM_TOO:
                words[_COMMAND] = value
                return
    slowly(offset, size, value)
