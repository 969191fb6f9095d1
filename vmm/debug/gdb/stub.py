"""The gdb stub: gdb's remote protocol on COM4.

    (gdb) target extended-remote SOCKET
    (gdb) attach 1

All-stop, multiprocess: an inferior is a guest (`info os processes` lists them), a thread a vCPU. What gdb sends is read
between two turns of guests; an invalid packet is counted and refused. docs/gdb-drgn.md is for users.
Source: GDB manual, "Remote Serial Protocol".
"""

import io
import sys

from micropython import const

from vmm.debug.gdb import registers
from vmm.debug.gdb.access import Access
from vmm.debug.gdb.documents import Documents
from vmm.debug.gdb.guest import TRAP
from vmm.debug.gdb.inferiors import Inferiors
from vmm.debug.gdb.memory import Memory
from vmm.debug.gdb.packets import (
    ACK,
    BREAK,
    HEX_BYTES,
    NAK,
    SIZE,
    BadPacket,
    Reader,
    frame,
    from_hex,
    to_hex,
)
from vmm.debug.gdb.running import Running
from vmm.debug.gdb.threads import Threads, name
from vmm.loaders.state import LoadError

_TOLD = const(3)  # bad packets that get a line each
_EXPEDITED = ("rbp", "rsp", "rip")  # in a stop reply
_WITH_WORDS = (b"v", b"Z", b"z", b"D")  # packets whose error may be a text
_SUPPORTED = (
    b"PacketSize=%x;qXfer:features:read+;qXfer:threads:read+;qXfer:osdata:read+;multiprocess+;swbreak+;hwbreak+;"
    b"vContSupported+;QStartNoAckMode+;binary-upload+"
)


class Stub(Inferiors, Access, Running, Documents):
    """A session of gdb. connected: gdb is there. guests: {pid: Guest} that it is attached to."""

    def __init__(self, monitor, uart, line):
        """uart: COM4; line: vmm.debug.gdb.line.GdbLine, which counts bad packets."""
        self.monitor = monitor
        self.connected = False
        self.guests = {}
        self.memory = Memory()
        self.threads = Threads()
        self.current = None  # (Guest, TID) of `g`, `m` and others
        self.running = False  # gdb waits for a stop reply
        self._uart = uart
        self._line = line
        self._reader = Reader()
        self._out = b""
        self._last = b""  # the last packet, which is sent again at NAK
        self._documents = {}  # for qXfer
        self._extended = False
        self._rows = registers.make(monitor.xcr0)

    def __repr__(self):
        names = ", ".join([guest.vm.name for guest in self.guests.values()])
        return "gdb, %s" % ("attached to " + names if names else "attached to no guest")

    # -- between the turns

    def serve(self):
        """Handle the packets that have come, and report a guest that has stopped."""
        scheduler = self.monitor.scheduler
        began = scheduler.begins()
        vm = self.current[0].vm if self.current and not self.current[0].gone else None
        scheduler.arm(vm.priority if vm else 0)
        try:
            self._flush()
            self._receive()
            self._report()
        finally:
            scheduler.disarm()
            if vm in self.monitor.vms.values():
                scheduler.charge_since(vm, began)

    def _receive(self):
        while True:
            try:
                room = self._reader.room()
                count = self._uart.readinto(room)
                if count:
                    self._reader.take(count)
                self._packets()
            except BadPacket as error:
                self._bad(error)
                continue
            if not count:
                return

    def _packets(self):
        while True:
            packet = self._reader.next()
            if packet is None:
                return
            if packet == BREAK:
                for guest in self.guests.values():
                    guest.interrupt()
            elif packet == NAK:
                if self._reader.acks:  # gdb also sends NAK without acknowledgements, while an answer takes long
                    self._write(self._last)
            elif packet != ACK:
                self.connected = True
                if self._reader.acks:
                    self._write(ACK)
                self._handle(packet)

    def _bad(self, error):
        line = self._line
        line.bad += 1
        if line.bad <= _TOLD:
            self.monitor.journal.say("gdb", "%s%s" % (error, ", and so on" if line.bad == _TOLD else ""))
        if self._reader.acks:
            self._write(NAK)

    def _handle(self, packet):
        why = None
        try:
            answer = self._answer(packet)
        except BadPacket as error:
            self._line.bad += 1
            why = error
        except (ValueError, KeyError, RuntimeError, LoadError) as error:
            why = error
        except MemoryError:
            why = "the monitor's heap is full"
        except Exception as error:
            out = io.StringIO()
            sys.print_exception(error, out)
            self.monitor.journal.say("gdb", "the stub failed at a packet:\n" + out.getvalue().rstrip())
            why = "the stub failed"
        if why is not None:  # gdb takes words as an answer to some packets, and only a number to the others
            answer = b"E." + str(why).encode() if packet[:1] in _WITH_WORDS else b"E01"
        if answer is not None:
            self.send(answer)

    def send(self, data):
        """A packet for gdb."""
        self._last = frame(data)
        self._write(self._last)

    def _write(self, data):
        self._out += data
        self._flush()

    def _flush(self):
        """Send as much as the UART has room for; the port calls again when that has been sent."""
        if self._out:
            sent = self._uart.write(self._out)
            if sent:
                self._out = self._out[sent:]

    # -- stops

    def _report(self):
        """Report a guest that has stopped to gdb, and stop the others."""
        if not self.running:
            return
        for guest in list(self.guests.values()):
            found = guest.look()
            if found:
                break
        else:
            return
        self.running = False
        for other in self.guests.values():
            if other is not guest:
                other.halt()
        self.send(self._stop(guest, found))

    def _stop(self, guest, found):
        """The stop reply. found: what Guest.look() returned."""
        if isinstance(found, bytes):
            self._forget(guest)
            return found + b";process:%x" % guest.pid
        vcpu, signal, words = found
        self.current = guest, vcpu.number + 1
        guest.said(vcpu)
        return self._reply(guest, vcpu, signal, words)

    def _reply(self, guest, vcpu, signal=TRAP, words=b""):
        parts = [b"T", signal, words, b"thread:", name(guest.pid, vcpu.number + 1), b";"]
        for number_, row in enumerate(self._rows[: registers.GENERAL]):
            if row.name in _EXPEDITED:
                parts.append(b"%02x:" % number_ + to_hex(row.read(vcpu)) + b";")
        return b"".join(parts)

    # -- packets

    def _answer(self, packet):
        """The answer to a packet, bytes; None: there is none, or it is sent later."""
        if packet == b"vCont?":
            return b"vCont;c;C;s;S;t;r"
        method = _LETTERS.get(packet[:1])
        if method is not None:
            return method(self, packet[1:])
        word = packet
        for end in b";:,?":
            word = word.split(bytes((end,)), 1)[0]
        method = _WORDS.get(word)
        return method(self, packet[len(word) + 1 :]) if method is not None else b""

    def _supported(self, _rest):
        self.leave()  # an earlier gdb may have gone without detaching
        self.connected = True
        self._extended = False
        self.memory.phys = self.threads.tasks = False
        return _SUPPORTED % SIZE

    def _no_acks(self, _rest):
        self.send(b"OK")
        self._reader.acks = False

    def _extend(self, _rest):
        self._extended = True
        return b"OK"

    def _monitor_command(self, rest):
        from vmm.debug.gdb import commands

        text = commands.run(self, from_hex(rest).decode())
        for start in range(0, len(text), HEX_BYTES):
            self.send(b"O" + to_hex(text[start : start + HEX_BYTES].encode()))
        return b"OK"


_LETTERS = {
    b"?": Stub._why,
    b"!": Stub._extend,
    b"g": Stub._read_all,
    b"G": Stub._write_all,
    b"p": Stub._read_register,
    b"P": Stub._write_register,
    b"m": Stub._read_memory,
    b"x": Stub._read_binary,
    b"M": Stub._write_memory,
    b"X": Stub._write_binary,
    b"Z": Stub._insert,
    b"z": Stub._remove,
    b"H": Stub._choose,
    b"T": Stub._alive,
    b"D": Stub._detach,
    b"k": Stub._kill,
    b"c": Stub._continue,
    b"s": Stub._step,
}
_WORDS = {
    b"qSupported": Stub._supported,
    b"QStartNoAckMode": Stub._no_acks,
    b"vAttach": Stub._attach,
    b"vRun": Stub._run,
    b"vKill": Stub._kill,
    b"qAttached": Stub._attached,
    b"qC": Stub._current,
    b"qfThreadInfo": Stub._first_threads,
    b"qsThreadInfo": Stub._next_threads,
    b"qThreadExtraInfo": Stub._extra,
    b"vCont": Stub._cont,
    b"vCtrlC": Stub._interrupt,
    b"qXfer": Stub._transfer,
    b"qRcmd": Stub._monitor_command,
}
