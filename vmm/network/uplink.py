"""The way from a switch to the machine's own network: a port with the machine's network card behind it.

A switch that is called "host" has it. The card is polled, by a timer of each guest that is plugged in there: soon after
frames went out or came in, and less and less often where nothing happens.
"""

from array import array

import cpu
import uctypes
from micropython import const

from vmm.network import offload
from vmm.network.words import NUMBER, PORT_WORDS, SOURCE, TABLE, TARGET, UP, WATCHED

_SOON = const(30)  # microseconds
_LATE = const(4000)
_AT_ONCE = const(32)  # frames
_PLAIN = bytes(10) + b"\x01\x00"


class Uplink:
    """card: vmm.host.e1000.E1000. For users: card, dropped, received, sent."""

    signal = None

    def __init__(self, card, scheduler):
        self.card = card
        self.name = "host network"
        self.mac = card.mac
        self.switch = None
        self.device = self
        self._scheduler = scheduler
        self.words = array("I", [0] * PORT_WORDS)
        self.at = uctypes.addressof(self.words)
        self.words[UP] = self.words[WATCHED] = 1
        self.words[SOURCE] = self.words[TARGET] = TABLE
        self.sent = 0
        self.received = 0
        self._period = _SOON
        self._timers = {}  # of ports

    @property
    def dropped(self):
        """Frames for which the card had no room."""
        return self.card.dropped

    def plug(self, switch, number):
        self.switch = switch
        self.words[NUMBER] = number

    def settle(self):
        """Nothing of its own waits."""

    # -- polling

    def serve(self, port):
        """A port's guest polls from now on, while it is on."""
        clock = port.vm.vcpus[0].clock
        self._timers[port] = clock.timer(lambda now: self._due(port, now)), clock

    def serve_no_more(self, port):
        timer, _ = self._timers.pop(port)
        timer.cancel()

    def power(self, port, on):
        timer, clock = self._timers[port]
        timer.arm(self._after(clock) if on else 0)

    def _after(self, clock):
        return clock.now() + clock.hz * self._period // 1000000

    def _due(self, port, now):
        if not self._scheduler.nested:
            self._period = _SOON if self.poll() else min(2 * self._period, _LATE)
        timer, clock = self._timers[port]
        timer.arm(self._after(clock))

    def _hurry(self):
        """An answer may come: look soon."""
        if self._period > 2 * _SOON:
            self._period = _SOON
            for timer, clock in self._timers.values():
                if timer.deadline:
                    timer.arm(self._after(clock))

    def poll(self):
        """Give what the card has received to the switch; how many frames."""
        card, count = self.card, 0
        if not card.ready():
            return 0
        cpu.hold(1)
        try:
            while count < _AT_ONCE:
                frame = card.receive()
                if frame is None:
                    break
                count += 1
                if len(frame) >= 14:
                    self.switch.forward(self, frame, bytearray(_PLAIN))
            self.received += count
        finally:
            cpu.hold(-1)
        return count

    # -- what the switch calls

    def deliver(self, frame, header, needs):
        """A frame of a guest for the host's network."""
        for one, _ in offload.finish(frame, header, 0) if needs else ((frame, header),):
            self.card.send(one)
            self.sent += 1
        self._hurry()

    def broken_receiver(self):
        """There is none to break."""

    def __repr__(self):
        return "%-16s sent %d, received %d, dropped %d" % (self.name, self.sent, self.received, self.dropped)


def find(scheduler, pages):
    """The uplink of this machine. ValueError where it has no card that the monitor can drive."""
    from vmm.host import e1000, pci

    for function in pci.functions():
        if (function.vendor, function.device) in e1000.DEVICES:
            function.enable(pci.MEMORY | pci.MASTER)
            return Uplink(e1000.E1000(function.memory(0), pages.take), scheduler)
    raise ValueError("this machine has no network card that the monitor can drive (an Intel 82540EM)")
