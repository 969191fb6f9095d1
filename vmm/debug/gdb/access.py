"""Packets of gdb that read and write registers and memory: g, G, p, P, m, M, x, X."""

from vmm.debug.gdb import registers
from vmm.debug.gdb.packets import HEX_BYTES, BadPacket, escape, from_hex, number, numbers, to_hex, unescape


class Access:
    """The part of vmm.debug.gdb.stub.Stub that answers them, for the thread that gdb has chosen."""

    def _read_all(self, _rest):
        _, vcpu, task = self.chosen()
        rows = self._rows[: registers.GENERAL]
        return b"".join([_register(row, vcpu, task) for row in rows])

    def _write_all(self, rest):
        vcpu = self._stopped_vcpu()
        data = from_hex(rest)
        rows = self._rows[: registers.GENERAL]
        if len(data) < sum([row.bits >> 3 for row in rows]):
            raise BadPacket("G with %d bytes" % len(data))
        for row in rows:
            row.write(vcpu, data[: row.bits >> 3])
            data = data[row.bits >> 3 :]
        return b"OK"

    def _stopped_vcpu(self):
        """The chosen vCPU, to be written. ValueError for a task."""
        _, vcpu, task = self.chosen()
        if task is not None:
            raise ValueError("registers of a task that sleeps are not written")
        return vcpu

    def _row(self, text):
        at = number(text)
        if at >= len(self._rows):
            raise BadPacket("no register %d" % at)
        return self._rows[at]

    def _read_register(self, rest):
        _, vcpu, task = self.chosen()
        return _register(self._row(rest), vcpu, task)

    def _write_register(self, rest):
        at, _, value = rest.partition(b"=")
        self._row(at).write(self._stopped_vcpu(), from_hex(value))
        return b"OK"

    # -- memory

    def _memory(self, address, size):
        _, vcpu, task = self.chosen()
        return self.memory.read(vcpu, task.space if task else None, address, min(size, HEX_BYTES))

    def _read_memory(self, rest):
        return to_hex(self._memory(*numbers(rest)))

    def _read_binary(self, rest):
        return b"b" + escape(self._memory(*numbers(rest)))

    def _store(self, place, data):
        address, size = numbers(place)
        if len(data) != size:
            raise BadPacket("%d bytes, not %d" % (len(data), size))
        _, vcpu, task = self.chosen()
        if size:
            self.memory.write(vcpu, task.space if task else None, address, data)
        return b"OK"

    def _write_memory(self, rest):
        place, _, data = rest.partition(b":")
        return self._store(place, from_hex(data))

    def _write_binary(self, rest):
        place, _, data = rest.partition(b":")
        return self._store(place, unescape(data))


def _register(row, vcpu, task):
    """A register in hexadecimal; x where it is not known."""
    data = row.read(vcpu) if task is None else task.read(row)
    return b"x" * (row.bits >> 2) if data is None else to_hex(data)
