"""Guests' consoles with a host UART: which are served, when, and what happens where one fails.

A poll checks each console for characters to move (between.py: viper) and serves those that have, between turns
and, for guests that interrupt a line, in the middle of the line.
"""

from array import array

import cpu

from vmm.scheduling.accounting import begin, charge, passed
from vmm.scheduling.between import poll
from vmm.scheduling.clock import cut
from vmm.scheduling.preemption import GRACES, disarm
from vmm.scheduling.states import OFF
from vmm.scheduling.words import DEFERRED, FLOOR, INSIDE, POLL


class Consoles:
    """The part of the scheduler that services consoles. most: how many guests there can be."""

    def __init__(self, most):
        self._watched = []  # the VMs, and ready() and poll() of their consoles
        self._ready = []
        self._polls = []
        self._console_frames = array("I", bytes(4 * most))
        self._serviced = -1  # the number of the one that is being served

    def watch_consoles(self, machines):
        """Serve the consoles of these VMs, which have a host UART."""
        cpu.hold(1)
        try:
            self._watched[:] = machines
            self._ready[:] = [vm.console.ready for vm in machines]
            self._polls[:] = [vm.console.poll for vm in machines]
            for i, vm in enumerate(machines):
                self._console_frames[i] = vm.vcpus[0].frame_hpa
            self._words[DEFERRED] |= POLL  # in the middle of a poll it passes over one
        finally:
            cpu.hold(-1)

    def poll(self):
        """Move characters of consoles, in and out, as far as there is room."""
        try:
            poll(self, 0)
        except Exception as error:
            self._unplug(error)

    def poll_later(self):
        """As poll(), at the end of this turn, which is soon."""
        words = self._words
        words[DEFERRED] |= POLL
        if words[INSIDE]:
            cut(self._frames[words[INSIDE] - 1], cpu.rdtsc() + self.hz // GRACES)

    def _poll_above(self, _):
        """In the middle of a line: the consoles of guests that run there."""
        try:
            poll(self, self._words[FLOOR])
        except Exception as error:
            self._unplug(error)

    def _poll_failed(self, error):
        if not isinstance(error, Exception):
            raise error
        self._unplug(error)

    # 4,000 ticks: each character typed at, or printed by, a console.
    def service_console(self, at, priority):
        """Service a console that has characters to move; guests above its guest, of this priority, may preempt that.
        at: its place in the list of consoles."""
        try:
            self.arm(priority)  # first, as they wait for it
            words = self._words
            frame = self._console_frames[at]
            self._serviced = at
            began = begin(words)
            self._polls[at]()
            self._serviced = -1
        finally:
            disarm(self._preempt_at)
        charge(frame, passed(words, began))

    def takes_no_input(self, at):
        """Whether a guest that stands still takes no typed characters: it is off, and has no output left."""
        vm = self._watched[at]
        return vm.state is OFF and not vm.console.uart.pending()

    def _unplug(self, error):
        """A console has failed: it is not served any more, and its guest is stopped."""
        at, self._serviced = self._serviced, -1
        if not 0 <= at < len(self._watched):
            self.report_error(error)
            return
        vm = self._watched[at]
        self.watch_consoles([other for other in self._watched if other is not vm])
        self.stop_faulty(vm, "its console, which is unplugged", error)
