"""Switches between guests. A switch learns which address is behind which port from the frames that it forwards.

    [[net]]                  in a guest's file (docs/guests.md)
    switch = "lan"

A frame goes to the port of its destination address; one for a group, or for an unknown address, goes to all others. An
address is known until its port's guest is switched off, another port sends from it, or its entry of the table is
needed. A receiver without buffers loses the frame, as on any Ethernet. Source: IEEE 802.1D, "Principles of operation".
"""

from array import array

import uctypes

from vmm.network import addresses
from vmm.network.checks import HOST
from vmm.network.port import text
from vmm.network.words import (
    COUNT,
    ENTRIES,
    ENTRY,
    KNOWN,
    MOST_PORTS,
    NEEDS_CSUM,
    NEEDS_TSO4,
    NEEDS_TSO6,
    PORTS,
    SWITCH_WORDS,
    TABLE,
    TCPV4,
    TCPV6,
)


class Switch:
    """For users: known, name, ports, uplink.

    ports: by number, None where one is free. signals: those of their devices, by number.
    """

    def __init__(self, name, soon, hold):
        """soon(frame): Scheduler.preempt_soon, for the vCPU with this frame; hold(frame, more): as VM.hold(more)."""
        self.name = name
        self.soon = soon
        self.hold = hold
        self.uplink = None  # vmm.network.uplink.Uplink of the switch "host"
        self.card = []  # of its uplink: [put, take, peek, keep]
        self.words = array("I", [0] * SWITCH_WORDS)
        self.at = uctypes.addressof(self.words)
        self.ports = []
        self.signals = []
        self.ways = self.at, self.signals, soon, self.broken, hold, self.card  # arguments of move.sender()

    def join(self, port):
        """Plug a port in. ValueError where its address is taken or there are too many."""
        for other in self.ports:
            if other is not None and other.mac == port.mac:
                raise ValueError("mac %s is %s's already" % (text(port.mac), other.name))
        number = 0
        while number < len(self.ports) and self.ports[number] is not None:
            number += 1
        if number == MOST_PORTS:
            raise ValueError("all %d ports of switch %s are taken" % (MOST_PORTS, self.name))
        if number == len(self.ports):
            self.ports.append(None)
            self.signals.append(None)
        self.ports[number] = port
        self.signals[number] = port.device.signal
        words = self.words
        words[PORTS + 2 * number] = port.at & 0xFFFFFFFF
        words[PORTS + 2 * number + 1] = port.at >> 32
        words[COUNT] = max(words[COUNT], number + 1)
        port.plug(self, number)

    def leave(self, port):
        """Unplug a port."""
        number = self.ports.index(port)
        self.words[PORTS + 2 * number] = self.words[PORTS + 2 * number + 1] = 0
        self.forget(port)
        self.ports[number] = self.signals[number] = None

    def forget(self, port):
        """Forget the addresses behind a port."""
        number, words = self.ports.index(port), self.words
        for at in range(TABLE, SWITCH_WORDS, ENTRY):
            if words[at + 1] & KNOWN and words[at + 2] == number:
                words[at] = words[at + 1] = words[at + 2] = 0

    def broken(self, number):
        """The receive queue of a port has been found broken."""
        self.ports[number].device.broken_receiver()

    @property
    def known(self):
        """{address: name of the port}."""
        out = {}
        words = self.words
        for at in range(TABLE, TABLE + ENTRY * ENTRIES, ENTRY):
            if words[at + 1] & KNOWN:
                mac = words[at].to_bytes(4, "little") + (words[at + 1] & 0xFFFF).to_bytes(2, "little")
                port = self.ports[words[at + 2]]
                out[text(mac)] = port.name if port else "?"
        return out

    def forward(self, source, frame, header):
        """Forward a frame on the slow path. source: its port, or None; header: virtio's 12 bytes."""
        if source is not None and not frame[6] & 1:
            low, high = int.from_bytes(frame[6:10], "little"), int.from_bytes(frame[10:12], "little")
            addresses.learn(self.at, low, high, self.ports.index(source))
        at = -1
        if not frame[0] & 1:
            low, high = int.from_bytes(frame[0:4], "little"), int.from_bytes(frame[4:6], "little")
            at = addresses.find(self.at, low, high)
        needs = wanted(header)
        if at >= 0:
            targets = [self.ports[self.words[at + 2]]]
        else:
            targets = list(self.ports)
        for port in targets:
            if port is not None and port is not source:
                port.deliver(frame, header, needs)

    # -- state as data

    def save(self):
        """Plain data: the known addresses. Ports are by number; their devices save themselves."""
        table = list(self.words)[TABLE:]
        return {"known": [table[at : at + ENTRY] for at in range(0, len(table), ENTRY) if table[at + 1]]}

    def load(self, saved):
        for at in range(TABLE, SWITCH_WORDS):
            self.words[at] = 0
        for low, high, number in saved["known"]:
            if number < len(self.ports) and self.ports[number] is not None:
                addresses.learn(self.at, low, high & 0xFFFF, number)

    def __repr__(self):
        rows = ["switch %s" % self.name]
        rows += ["  " + repr(port) for port in self.ports if port is not None]
        return "\n".join(rows)


class Switches:
    """All switches of a monitor, by name. A switch exists as long as it has a guest's port."""

    def __init__(self, scheduler, soon, hold, pages=None):
        scheduler.defer(self._settle)
        self._scheduler = scheduler
        self._soon = soon
        self._hold = hold
        self._pages = pages
        self._uplink = None  # vmm.network.uplink.Uplink, from its first use on
        self.by_name = {}

    def __getitem__(self, name):
        try:
            return self.by_name[name]
        except (KeyError, TypeError):
            text = "no switch %r; switches: %s"
            raise KeyError(text % (name, ", ".join(sorted(self.by_name)) or "none")) from None

    def __repr__(self):
        return "\n".join([repr(switch) for _, switch in sorted(self.by_name.items())]) or "no switches"

    def join(self, name, port):
        """Plug a port into the switch of this name, which is created for its first port. ValueError."""
        switch = self.by_name.get(name)
        if switch is None:
            switch = Switch(name, self._soon, self._hold)
            if name == HOST:
                switch.uplink = self._host()
                switch.join(switch.uplink)
        switch.join(port)
        if switch.uplink:
            switch.uplink.serve(port)
        self.by_name[name] = switch

    def _host(self):
        if self._uplink is None:
            from vmm.network import uplink

            self._uplink = uplink.find(self._scheduler, self._pages)
        return self._uplink

    def leave(self, port):
        switch = port.switch
        if switch is None:
            return
        if switch.uplink:
            switch.uplink.serve_no_more(port)
        switch.leave(port)
        port.switch = None
        if not any([other for other in switch.ports if other is not switch.uplink]):
            del self.by_name[switch.name]

    def close(self):
        """Stop the uplink's card."""
        if self._uplink:
            self._uplink.card.close()

    def lonely(self):
        """Warnings about switches with one port: a list of lines."""
        lines = []
        for name, switch in sorted(self.by_name.items()):
            names = [port.name for port in switch.ports if port is not None]
            if len(names) == 1:
                lines.append("switch %s has one port, %s: nobody hears what is sent there" % (name, names[0]))
        return lines

    def _settle(self):
        for switch in list(self.by_name.values()):
            for port in switch.ports:
                if port is not None:
                    port.settle()


def wanted(header):
    """The offloads left to be done to a frame with this header: bits of vmm.network.words."""
    kind = header[1]
    if kind == TCPV4:
        return NEEDS_TSO4 | NEEDS_CSUM
    if kind == TCPV6:
        return NEEDS_TSO6 | NEEDS_CSUM
    return header[0] & NEEDS_CSUM
