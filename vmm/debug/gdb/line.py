"""gdb's line, COM4: monitor.gdb.

The line is not read until its first character: the port calls the listener then, and the stub (stub.py) is
imported. The stub is served between two turns of guests, and dropped when gdb has left.
"""

import machine
from micropython import const

_COM4 = const(3)


class GdbLine:
    """stub: vmm.debug.gdb.stub.Stub while gdb is there, else None. bad: how many invalid packets have come."""

    def __init__(self, monitor):
        self._monitor = monitor
        self._served = False
        self.stub = None
        self.bad = 0
        self._uart = None
        try:
            self._uart = machine.UART(_COM4)
        except OSError:
            return  # ENODEV: a machine without COM4
        self._uart.listen(self._heard)

    def _heard(self, _):
        """The UART's listener: let the characters be read after this turn."""
        scheduler = self._monitor.scheduler
        if not self._served:
            self._served = True
            scheduler.defer(self._serve)
        scheduler.defer()

    def _serve(self):
        if self.stub is None:
            from vmm.debug.gdb.stub import Stub

            self.stub = Stub(self._monitor, self._uart, self)
        self.stub.serve()
        if not self.stub.connected:
            self.stub = None
            self._served = False
            self._monitor.scheduler.defer_no_more(self._serve)

    def detach(self):
        """End gdb's session, as gdb's `disconnect` and `detach` do: no breakpoint stays, its guests go on."""
        if self.stub is not None:
            self.stub.leave()

    def __repr__(self):
        return "<COM4: %s>" % (self.stub or ("no gdb" if self._uart else "this machine has none"))
