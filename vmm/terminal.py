"""The prompt's terminal as a guest's console: vm.console(), vm.attach(), and Ctrl-] to return.

While it is attached, everything typed goes to the guest, Ctrl-C too, and all guests run. Characters typed faster than
the guest reads are kept up to a limit; beyond it the terminal's bell rings.
"""

import select
import sys

import cpu
import micropython
from micropython import const

DETACH = "\x1d"  # Ctrl-]
_KEPT = const(4096)  # characters typed ahead
_CTRL_C = const(3)
_BELL = b"\x07"


class Terminal:
    """The prompt's line as a console's host side. key: the character that detaches."""

    def __init__(self, key):
        self._poll = select.poll()
        self._poll.register(sys.stdin, select.POLLIN)
        self._key = ord(key)
        self._typed = bytearray()
        self.detached = False

    def writechar(self, c):
        sys.stdout.buffer.write(bytes((c,)))
        return True

    def any(self):
        return len(self._typed)

    def readchar(self):
        if not self._typed:
            return -1
        c = self._typed[0]
        self._typed = self._typed[1:]
        return c

    def poll(self):
        """Collect the typed characters, up to the key."""
        while self._poll.poll(0):
            c = sys.stdin.buffer.read(1)[0]
            if c == self._key:
                self.detached = True
                return
            if len(self._typed) < _KEPT:
                self._typed.append(c)
            else:
                sys.stdout.buffer.write(_BELL)


def key_name(key):
    """'Ctrl-]' for '\\x1d', and so on."""
    return key if key >= " " else "Ctrl-" + chr(ord(key) | 0x40)


def attach(monitor, vm, key, console):
    """Give the terminal to a console of a guest until `key` is typed, and let guests run meanwhile.

    RuntimeError inside an exit (a policy cannot attach) and for a linked COM1, ValueError for a bad key.
    """
    scheduler = monitor.scheduler
    if scheduler.inside is not None:
        raise RuntimeError("a policy cannot attach to a console: its guest is in an exit")
    if not isinstance(key, str) or len(key) != 1 or ord(key) > 0x7F:
        raise ValueError("key=%r: one character" % (key,))
    if console.linked:
        end = monitor.links.at(vm.name, 0)
        raise RuntimeError("guest %s has no console: its COM1 is linked to %s" % (vm.name, end.far.place()))
    before = console.host
    terminal = Terminal(key)
    print("[console of %s; %s detaches]" % (vm.name, key_name(key)))
    micropython.kbd_intr(-1)
    cpu.idle_hook(None)  # this loop runs the guests
    console.host = terminal
    try:
        while not terminal.detached:
            scheduler.step(cpu.rdtsc() + scheduler.slice_ticks)
            monitor.journal.flush()
            monitor.machine_checks.look()
            terminal.poll()
            console.poll()
    finally:
        if not console.linked:  # a policy may have created the guest at the far end
            console.host = before
        cpu.idle_hook(monitor.idle)
        micropython.kbd_intr(_CTRL_C)
        print("\n[detached]")
