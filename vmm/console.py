"""A guest's console: its first UART, or its virtio-console, on one side, a host UART or the prompt on the other.

Output is kept in a ring, so that the prompt can show what a guest last printed even where it has no host UART.
"""

from array import array

import micropython
from micropython import const
from vmx import bind

from vmm.devices.uart16550_registers import MSR_CTS, MSR_DCD, MSR_DSR

RING = const(8192)  # bytes, a power of two

# Callables of the host, by their index in Console._far.
_WRITECHAR = const(0)
_READCHAR = const(1)
_ANY = const(2)


class Console:
    """Carries characters between a guest's UART and the outside.

    For users: attach, tail, written.

    host: an object with any() -> how many characters wait, readchar() -> int or -1, writechar(c) -> bool; or None.
    attach(): what calling the console does (vmm/terminal.py). poll() moves the characters that can be moved, ready() ->
    whether there are any; both run no bytecode and exist once `uart` is set. more(): called when the guest has read its
    input and more waits, so that poll() is due.
    """

    def __init__(self, host, more, ring):
        """ring: a buffer of RING bytes."""
        self._far = [None] * 3
        self.drained = bind(_drained, self._far, more)
        self.host = host
        self._uart = self.ready = self.poll = None
        self.linked = False  # the UART has a cable to another guest instead (vmm/ties/link.py)
        self.attach = None
        self._ring = ring
        self._count = array("I", [0, 0])
        self.tx = bind(_tx, self._ring, self._count, self._far)

    def __call__(self, *args, **options):
        """vm.console() at the prompt: the terminal becomes this console until Ctrl-] is typed."""
        self.attach(*args, **options)

    @property
    def written(self):
        """How many characters the guest has sent."""
        return self._count[0] | self._count[1] << 32

    @property
    def host(self):
        return self._host

    @host.setter
    def host(self, host):
        self._host = host
        self._far[:] = (host.writechar, host.readchar, host.any) if host else (None,) * 3

    @property
    def uart(self):
        return self._uart

    @uart.setter
    def uart(self, uart):
        self._uart = uart
        kind = type(uart)
        self.ready = bind(_ready, bind(kind.pending, uart), self._far)
        self.poll = bind(_poll, bind(kind.poll, uart), bind(kind.feed, uart), self._far)

    def plug(self, clock):
        """Connect the UART here, when its cable is removed. clock: the guest's."""
        self.linked = False
        self.uart.connect(self.tx, _nothing, self.drained, None, MSR_CTS | MSR_DSR | MSR_DCD, clock)

    def notice(self, text):
        """A line of the monitor's own, marked, on this console: its guest stands still, say. It is no
        output of the guest's: tail() does not have it. Lost where no UART is attached or no room is left."""
        writechar = self._far[_WRITECHAR]
        if writechar and not self.linked:
            for byte in ("\r\n[pcanel: %s]\r\n" % text).encode():
                writechar(byte)

    def tail(self, size=2000):
        """Return the last characters that the guest sent, as str."""
        count = min(size, RING, self.written)
        end = self.written & (RING - 1)
        start = end - count
        if start < 0:
            data = self._ring[start:] + self._ring[:end]
        else:
            data = self._ring[start:end]
        return "".join([chr(b) if b < 128 else "?" for b in data])


def _nothing(_=None):
    """The host ignores the modem lines."""


@micropython.viper
def _drained(far, more):
    waiting = far[_ANY]
    if waiting:
        if int(waiting()):
            more()


@micropython.viper
def _tx(ring, written, far, byte: int) -> bool:
    """The guest sends a character; False when there is no room (it stays in the UART)."""
    writechar = far[_WRITECHAR]
    if writechar:
        if not writechar(byte):
            return False
    count = ptr32(written)
    ptr8(ring)[int(count[0]) & 8191] = byte
    count[0] += 1
    if count[0] == 0:
        count[1] += 1
    return True


@micropython.viper
def _poll(send, feed, far) -> int:
    send()
    readchar = far[_READCHAR]
    if readchar:
        feed(readchar)
    return 0


@micropython.viper
def _ready(pending, far) -> int:
    if int(pending()):
        return 1
    waiting = far[_ANY]
    if waiting:
        return int(waiting())
    return 0
