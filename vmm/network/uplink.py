"""The uplink of the switch "host" to the host's network: a port with the host's network card behind it.

vmm/network/move.py forwards frames in both directions, those of guests to the card's rings within the exit by which the
driver notifies. The card is polled in the same exit, since an answer may be there at once, and after its interrupts. If
its interrupt line is not the one that firmware has named, a timer of each guest at the switch polls it: rarely, and
often after it has found frames without an interrupt.
"""

from array import array

import cpu
import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm.devices.virtio.queue import BUFFERS, CHAIN, NOTHING, new_chain
from vmm.host import LEVEL
from vmm.network import move, offload
from vmm.network.words import (
    CAN,
    CARD,
    DROPPED,
    HEADER,
    LEFT,
    NUMBER,
    PORT_WORDS,
    RECEIVED,
    SENT,
    SIZE,
    SOURCE,
    TABLE,
    TARGET,
    TX_CHAIN,
    UP,
)
from vmm.vtx.frame import PRIORITY

_SOON = const(30)  # microseconds
_LATE = const(4000)
_RARELY = const(100000)  # while interrupts arrive
_SECOND = const(1000000)
_PASSES = const(16)  # of move.send(), before other guests run
# Words of `_looks`, for the timers.
_SILENT = const(0)  # frames have arrived without an interrupt
_PERIOD = const(1)  # of the guests' polls, in microseconds

_NETWORK = const(1)  # the device ID of virtio
_PLAIN = bytes(10) + b"\x01\x00"


class Uplink:
    """card: of vmm.host (E1000, VirtioNet). For users: card, dropped, received, sent."""

    def __init__(self, card, scheduler):
        self.card = card
        self.name = "host network"
        self.mac = card.mac
        self.switch = None
        self.device = self
        self._scheduler = scheduler
        self._chain = new_chain()
        words = self.words = array("I", [0] * PORT_WORDS)
        self.at = uctypes.addressof(words)
        words[UP] = words[CARD] = 1
        words[LEFT] = NOTHING
        words[CAN] = card.can
        words[SOURCE] = words[TARGET] = TABLE
        chain = uctypes.addressof(self._chain)
        words[TX_CHAIN], words[TX_CHAIN + 1] = chain & 0xFFFFFFFF, chain >> 32
        words[HEADER + 2] = 0x10000  # one buffer: frames of the card are whole
        self._send = self.signal = None
        self._looks = array("I", [0, _RARELY])
        self._timers = {}  # of ports
        self._payer = [None, 0]  # the guest that is charged for the card's service between turns, hpa of its frame
        self._listen()

    def _listen(self):
        """The card's interrupt has been answered: enable it, and unmask its line."""
        self.card.answered()
        if self.card.line is not None:
            try:
                cpu.line(self.card.line, LEVEL)
            except ValueError:
                self.card.line = None  # only the timers poll it
        self.card.listen()

    def _count(self, word):
        return self.words[word], self.words[word + 1] | self.words[word + 2] << 32

    @property
    def sent(self):
        """(frames, bytes) that guests have sent to the host's network; frames modulo 2**32."""
        return self._count(RECEIVED)

    @property
    def received(self):
        """(frames, bytes) that have been received from the host's network."""
        return self._count(SENT)

    @property
    def dropped(self):
        """Frames for which the card had no room."""
        return self.words[DROPPED]

    def plug(self, switch, number):
        self.switch = switch
        self.words[NUMBER] = number
        card = self.card
        switch.card[:] = card.put, card.take, card.peek, card.keep
        self._send = move.sender(self.at, *switch.ways)
        self.signal = bind(_kick, card.tell, self._send, card.listen, self._go_on)
        switch.signals[number] = self.signal
        scheduler = self._scheduler
        scheduler.drivers.append(bind(
            _look, card.has, self.words, self._looks, self._payer, scheduler.poll_later, scheduler.serve, self._serve
        ))  # fmt: skip

    def settle(self):
        """Port.settle(): an uplink defers nothing."""

    # -- frames from the card

    def _go_on(self, found):
        """More answers than one pass of send() takes, or a frame for bytecode, in the exit that has sent. The guest
        gets all of it with one interrupt: it acknowledges less often, and merges more."""
        self.words[LEFT] = found
        self._serve()

    def _serve(self):
        """Forward the frames that the card has received. Guests of higher priority may run between two passes."""
        for _ in range(_PASSES):
            if self.words[LEFT] == CHAIN:
                self._slowly()
            self.words[LEFT] = self._send()
            if self.words[LEFT] == NOTHING:
                self._listen()
                return
        self._scheduler.poll_later()

    def _slowly(self):
        """Forward the frame that send() has left to bytecode."""
        chain = self._chain
        hpa = chain[BUFFERS] | chain[BUFFERS + 1] << 32
        frame = bytearray(uctypes.bytearray_at(hpa, self.words[SIZE]))
        cpu.hold(1)
        try:
            move.add(self.at, SENT, len(frame))
            self.switch.forward(self, frame, bytearray(_PLAIN))
        finally:
            cpu.hold(-1)

    # -- polling, in case no interrupts arrive

    def serve(self, port):
        """A timer of the port's guest polls the card from now on, while the guest is on."""
        clock = port.vm.vcpus[0].clock
        timer = clock.timer(None)
        timer.callback = bind(
            _due, self.words, self._looks, self._scheduler.depth,
            self.card.has_frame, self._unannounced, timer.arm, clock.hz,
        )  # fmt: skip
        self._timers[port] = timer, clock

    def serve_no_more(self, port):
        timer, _ = self._timers.pop(port)
        timer.cancel()
        self._choose()

    def power(self, port, on):
        timer, clock = self._timers[port]
        timer.arm(clock.now() + clock.hz * self._looks[_PERIOD] // _SECOND if on else 0)
        self._choose()

    def _choose(self):
        """Charge the guest of the highest priority at this switch."""
        payer = None
        for port in self._timers:
            if port.up and (payer is None or port.vm.priority > payer.priority):
                payer = port.vm
        self._payer[:] = payer, payer.vcpus[0].frame_hpa if payer else 0

    def _unannounced(self):
        """A timer has found a frame without an interrupt."""
        self.words[LEFT] = self._send()
        self._scheduler.poll_later()

    # -- called by the switch

    def deliver(self, frame, header, needs):
        """Send a frame of the slow path to the host's network."""
        for one, rest in offload.finish(frame, header, self.card.can) if needs else ((frame, header),):
            at = uctypes.addressof(one)
            part = array("I", [at & 0xFFFFFFFF, at >> 32, len(one)])
            done = self.card.put(uctypes.addressof(part), 0, len(one), uctypes.addressof(rest))
            move.add(self.at, RECEIVED if done == CHAIN else DROPPED, len(one))
        self.signal(0)

    def broken_receiver(self):
        """Net.broken_receiver(): an uplink has no receive queue."""

    def __repr__(self):
        return "%-16s sent %d (%d bytes), received %d (%d bytes), dropped %d" % (
            (self.name,) + self.sent + self.received + (self.dropped,)
        )


@micropython.viper
def _look(has, words: ptr32, looks: ptr32, payer, later, serve, work, floor: int):
    """Poll the card after a host interrupt. floor: serve only guests of this priority and above; otherwise later.
    Guests above the one that is charged are delayed until serve() has begun."""
    if words[LEFT] == NOTHING:
        if int(has()) == 0:
            return
        looks[_SILENT] = 0
    frame = int(payer[1])
    if frame == 0:
        work()
    elif int(ptr32(frame)[PRIORITY]) < floor:
        later()
    else:
        serve(payer[0], work)


@micropython.viper
def _due(words: ptr32, looks: ptr32, interrupted: ptr32, has_frame, unannounced, arm, hz: int, now: int):
    """Poll the card for a guest's timer. Guests above this one are delayed by this function."""
    if interrupted[0] == 0:
        if words[LEFT] == NOTHING and int(has_frame()):
            looks[_SILENT] = 1
            looks[_PERIOD] = _SOON
            unannounced()
        else:
            period = 2 * int(looks[_PERIOD])
            most = int(_LATE if looks[_SILENT] else _RARELY)
            looks[_PERIOD] = period if period < most else most
    arm(now + hz * int(looks[_PERIOD]) // int(_SECOND))


@micropython.viper
def _kick(tell, send, listen, go_on, n: int):
    """Start the transmission of the card's ring. Answers that arrive at once are received without an interrupt."""
    tell()
    found = int(send())
    if found == NOTHING:
        listen()
    else:
        go_on(found)


def find(scheduler, pages):
    """The uplink of this host. ValueError if it has no network card for which there is a driver."""
    from vmm.devices.pci_header import BUS_MASTER, MEMORY_SPACE
    from vmm.host import e1000, pci, virtio

    for function in pci.functions():
        if (function.vendor, function.device) in e1000.DEVICES:
            function.enable(MEMORY_SPACE | BUS_MASTER)
            return Uplink(e1000.E1000(function, pages.take), scheduler)
        if virtio.kind(function) == _NETWORK:
            from vmm.host.virtio_net import VirtioNet

            try:
                return Uplink(VirtioNet(function, pages.take), scheduler)
            except ValueError as error:
                raise ValueError("this machine's network card, %r: %s" % (function, error)) from None
    raise ValueError("this machine has no network card that the monitor can drive (an Intel 82540EM, or virtio)")
