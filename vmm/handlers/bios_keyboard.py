"""INT 16h for a guest with BIOS services: characters from the guest's console as keys.

AH is the scan code, AL the character. Limits: no function keys, no state of the shift keys.
"""

from array import array

import micropython
import uctypes
from vmx import bind

from vmm.devices.uart16550_registers import LSR, LSR_DR
from vmm.vtx.frame import RSP
from vmm.vtx.vmcs import GUEST_CR0, GUEST_SS_ACCESS_RIGHTS, GUEST_SS_BASE
from vmm.vtx.vmcs_bits import RIGHTS_DB

# A terminal's characters after ESC [ : scan codes of the keys.
_ARROWS = {ord("A"): 0x48, ord("B"): 0x50, ord("C"): 0x4D, ord("D"): 0x4B, ord("H"): 0x47, ord("F"): 0x4F}
_SCAN_CODES = {
    character: code
    for first, row in ((0x02, b"1234567890-=\x08\t"), (0x10, b"qwertyuiop[]\r"), (0x1E, b"asdfghjkl;'`"),
                       (0x2B, b"\\zxcvbnm,./"), (0x39, b" "), (0x01, b"\x1b"))
    for code, character in enumerate(row, first)
}  # fmt: skip
_SHIFTED = dict(zip(b'!@#$%^&*()_+{}:"~|<>?', b"1234567890-=[];'`\\,./"))


class Keyboard:
    """The keyboard of one guest. memory: the guest's. uart: its console's UART."""

    def __init__(self, memory, uart):
        self._uart = uart
        self._keys = []
        self._waiting = bytearray(1)  # number of keys in the queue
        _, size, hpa = memory.segments[0]
        self._ram = array("Q", (hpa, size))

    def reset(self):
        """Empty the queue of keys."""
        self._keys = []
        self._waiting[0] = 0

    def poll(self, slow):
        """Return the hypercall for INT 16h: f(vcpu) -> EAX. slow(vcpu): for calls other than "no key waits"."""
        return bind(_poll, self._ram, self._waiting, uctypes.addressof(self._uart.registers) + LSR, slow)

    def call(self, call):
        """INT 16h; False for an unsupported function."""
        function = call.ah
        if function in (0x02, 0x12):
            call.al = 0
            if function == 0x12:
                call.ah = 0
            return True
        if function not in (0x00, 0x01, 0x10, 0x11):
            return False
        self._read()
        if function in (0x01, 0x11):
            call.zero(not self._keys)
            if self._keys:
                call.ax = self._keys[0]
        elif self._keys:
            call.ax = self._keys.pop(0)
        else:
            call.again = True
        self._waiting[0] = len(self._keys)
        return True

    def _read(self):
        """Read a key from the console's UART if the queue is empty."""
        uart = self._uart
        if self._keys or not uart.read(LSR, 1) & LSR_DR:
            return
        character = uart.read(0, 1)
        if character == 0x0A:
            character = 0x0D  # a line feed counts as Enter
        code = _SCAN_CODES.get(character)
        if character == 0x1B and uart.read(LSR, 1) & LSR_DR:
            uart.read(0, 1)  # [ or O
            self._keys.append(_ARROWS.get(uart.read(0, 1), 0) << 8)
            return
        if code is None and 1 <= character <= 26:
            code = _SCAN_CODES[character + 0x60]
        elif code is None:
            lower = character + 0x20 if 0x41 <= character <= 0x5A else _SHIFTED.get(character, 0)
            code = _SCAN_CODES.get(lower, 0)
        if character == 0x7F:
            character, code = 0x08, 0x0E
        self._keys.append(code << 8 | character)


# Programs that wait for a key poll without pause; Bios.answer takes 70,000 ticks a call.
@micropython.viper
def _poll(ram, waiting, lsr: int, slow, vcpu) -> int:
    """INT 16h: "no key waits"; slow(vcpu) for all other cases. ram: host address and size in bytes of RAM at gpa 0."""
    r = ptr32(ram)
    stack = ptr32(vcpu)[RSP] & 0xFFFF
    at = int(vcpu.read(GUEST_SS_BASE)) + stack
    plain = int(vcpu.read(GUEST_SS_ACCESS_RIGHTS)) & RIGHTS_DB == 0 and int(vcpu.read(GUEST_CR0)) >> 31 == 0
    if not plain or at + 10 > (int(r[2]) | int(r[3]) << 32):
        return int(slow(vcpu))
    p = ptr8((int(r[0]) | int(r[1]) << 32) + at)
    function = int(p[1])
    if function != 0x01 and function != 0x11:
        return int(slow(vcpu))
    if ptr8(waiting)[0] or ptr8(lsr)[0] & LSR_DR:
        return int(slow(vcpu))
    p[8] |= 0x40  # ZF
    return int(p[0]) | int(p[1]) << 8 | int(p[2]) << 16 | int(p[3]) << 24
