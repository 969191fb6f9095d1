"""Packets of gdb that set breakpoints, let guests go on and stop them: Z, z, vCont, c, s, vCtrlC."""

from vmm.debug.gdb.guest import CONTINUE, STEP
from vmm.debug.gdb.packets import BadPacket, numbers
from vmm.debug.gdb.threads import ALL, ANY, parse


class Running:
    """The part of vmm.debug.gdb.stub.Stub that answers them."""

    # -- breakpoints

    def _point(self, rest):
        kind, address, size = numbers(rest.split(b";")[0], 3)
        if kind > 4:
            raise BadPacket("no kind of breakpoint: %d" % kind)
        return self.chosen()[:2] + (kind, address, size if kind > 1 else 0)

    def _insert(self, rest):
        guest, vcpu, kind, address, size = self._point(rest)
        guest.points.insert(vcpu, kind, address, size)
        return b"OK"

    def _remove(self, rest):
        guest, _, kind, address, size = self._point(rest)
        guest.points.remove(kind, address, size)
        return b"OK"

    # -- running

    def _cont(self, rest):
        """vCont;ACTION[:THREAD];...: for each thread the first action that names it."""
        chosen = {}  # pid: {vCPU's number: action}
        for word in rest.split(b";"):
            action, _, thread = word.partition(b":")
            what = _action(action)
            pid, tid = parse(thread) if thread else (ALL, ALL)
            if pid is None:
                pid = self.chosen()[0].pid
            for guest in self.guests.values():
                if pid in (ALL, guest.pid) and not guest.gone:
                    mine = chosen.setdefault(guest.pid, {})
                    for vcpu in guest.vm.vcpus:
                        if tid in (ALL, ANY, vcpu.number + 1) or tid > len(guest.vm.vcpus) and vcpu.number == 0:
                            mine.setdefault(vcpu.number, what)
                elif pid == guest.pid:
                    chosen[pid] = {}
        self._go(chosen)

    def _go(self, chosen):
        actions = {pid: {n: what for n, what in mine.items() if what} for pid, mine in chosen.items()}
        guests = [self.guests[pid] for pid in actions if actions[pid] or self.guests[pid].gone]
        if not guests:
            raise ValueError("no guest is to go on")
        self.running = True
        self.threads.forget()
        for guest in guests:
            if guest.gone:
                guest.stopped = False
            else:
                guest.go(actions[guest.pid])
        self.monitor.scheduler.defer()

    def _continue(self, rest):
        self._go({self.chosen()[0].pid: {vcpu.number: CONTINUE for vcpu in self.chosen()[0].vm.vcpus}})

    def _step(self, rest):
        guest, vcpu, _ = self.chosen()
        self._go({guest.pid: {vcpu.number: STEP}})

    def _interrupt(self, _rest):
        for guest in self.guests.values():
            guest.interrupt()
        return b"OK"


def _action(word):
    letter = word[:1]
    if letter in (b"c", b"C"):
        return CONTINUE
    if letter in (b"s", b"S"):
        return STEP
    if letter == b"r":
        return tuple(numbers(word[1:]))
    if letter == b"t":
        return None
    raise BadPacket("no action")
