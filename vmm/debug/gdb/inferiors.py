"""Packets of gdb that choose guests and threads: attach, run, kill, detach, lists."""

from micropython import const

from vmm.debug.gdb.guest import Guest
from vmm.debug.gdb.packets import from_hex, number, to_hex
from vmm.debug.gdb.threads import ALL, ANY, name, parse
from vmm.scheduling.states import OFF

_IDS = const(128)  # thread IDs in a packet


class Inferiors:
    """The part of vmm.debug.gdb.stub.Stub that answers them."""

    # -- guests

    def leave(self):
        """The session ends: no breakpoint stays, and what it has stopped goes on."""
        for guest in list(self.guests.values()):
            self._forget(guest)
        self.running = False
        self.connected = False
        self._reader.acks = True

    def _forget(self, guest):
        self.guests.pop(guest.pid, None)
        guest.detach()
        if self.current and self.current[0] is guest:
            self.current = None
            for other in self.guests.values():
                self.current = other, 1

    def vm(self, pid):
        """The VM of a process ID. ValueError."""
        for vm in self.monitor.vms.values():
            if min(vm.vpids) == pid:
                return vm
        raise ValueError("no guest has number %d; there are %s" % (pid, self._numbers()))

    def _numbers(self):
        return ", ".join(["%d (%s)" % (min(vm.vpids), vm.name) for vm in self.monitor.vms.values()]) or "none"

    def attach(self, vm):
        """Stop a guest; returns the stop reply."""
        pid = min(vm.vpids)
        guest = self.guests.get(pid)
        if guest is None:
            guest = Guest(vm, pid, self.monitor.scheduler.defer)
            guest.attach()
            self.guests[pid] = guest
        self.current = guest, 1
        return self._reply(guest, vm.vcpus[0])

    def chosen(self):
        """(Guest, vCPU, Task or None) of the thread that gdb has chosen. ValueError where there is none."""
        if self.current is None:
            raise ValueError("no guest is attached: attach NUMBER; there are %s" % self._numbers())
        guest, tid = self.current
        if guest.gone:
            raise ValueError("guest %s has been destroyed" % guest.vm.name)
        return guest, self.threads.vcpu(guest, tid), self.threads.task(guest, tid)

    def _thread(self, text):
        """(Guest, TID) of a thread-id."""
        pid, tid = parse(text)
        if pid in (None, ANY, ALL):
            if self.current is None:
                raise ValueError("no guest is attached")
            guest = self.current[0]
            if tid in (ANY, ALL):
                tid = self.current[1]
        else:
            guest = self.guests.get(pid)
            if guest is None:
                raise ValueError("guest %d is not attached" % pid)
            if tid in (ANY, ALL):
                tid = 1
        if not guest.gone:
            self.threads.vcpu(guest, tid)
        return guest, tid

    def _why(self, _rest):
        """`?`: gdb without extended-remote expects a process to be there, so the first guest is attached."""
        if not self.guests and not self._extended and len(self.monitor.vms):
            return self.attach(next(iter(self.monitor.vms.values())))
        for guest in self.guests.values():
            return self._reply(guest, guest.vm.vcpus[0])
        return b"W00"

    def _attach(self, rest):
        return self.attach(self.vm(number(rest)))

    def _run(self, rest):
        """vRun: start a guest anew, by name or the last one that gdb had."""
        wanted = from_hex(rest.split(b";")[0]).decode()
        vms = self.monitor.vms
        if wanted not in vms:
            raise ValueError("run starts a guest anew: `set remote exec-file NAME`; there are %s" % self._numbers())
        vm = vms[wanted]
        loaded = vm.state == OFF and min(vm.vpids) not in self.guests
        reply = self.attach(vm)  # loads one that is off
        if loaded:
            return reply
        vm.start()
        return self.attach(vm)

    def _kill(self, rest):
        guest = self.guests.get(number(rest)) if rest else self.chosen()[0]
        if guest is None:
            raise ValueError("that guest is not attached")
        self._forget(guest)
        if not guest.gone:
            guest.vm.power_off()
        return b"OK"

    def _detach(self, rest):
        if not rest:
            self.send(b"OK")
            self.leave()
            return None
        guest = self.guests.get(number(rest.lstrip(b";")))
        if guest is None:
            raise ValueError("that guest is not attached")
        self._forget(guest)
        self.send(b"OK")
        if not self.guests and not self._extended:
            self.leave()
        return None

    def _attached(self, _rest):
        return b"1"  # so that gdb detaches and does not kill when it ends

    def _choose(self, rest):
        if rest[:1] == b"g":
            self.current = self._thread(rest[1:])
        return b"OK"

    def _current(self, _rest):
        guest, tid = self.current or (None, 0)
        return b"QC" + name(guest.pid, tid) if guest else b""

    def _alive(self, rest):
        guest, tid = self._thread(rest)
        return b"OK" if not guest.gone and self.threads.alive(guest, tid) else b"E01"

    def _first_threads(self, _rest):
        ids = []
        for guest in self.guests.values():
            if not guest.gone:
                ids += [name(guest.pid, tid) for tid in self.threads.ids(guest)]
        self._documents["ids"] = ids
        return self._next_threads(b"")

    def _next_threads(self, _rest):
        ids = self._documents.get("ids") or []
        self._documents["ids"] = ids[_IDS:]
        return b"m" + b",".join(ids[:_IDS]) if ids else b"l"

    def _extra(self, rest):
        return to_hex(self.threads.words(*self._thread(rest)).encode())
