"""A virtual machine: memory, tables, devices and one vCPU, and what the prompt can do to it.

    vms['linux'].pause(); vms['linux'].vcpu.rip; vms['linux'].resume()

A VM is made by vmm.monitor.Monitor.create from a guest's JSON (docs/guests.md). All of it is one class, since what
it is made of, its life and its end have to agree on each part; what only hangs on it has files of its own.
"""

import io as io_streams
import sys

import cpu
from micropython import const

from vmm import backoff, bus, handlers, loaders, pc, screen, tally, terminal, verdict
from vmm.gone import Gone
from vmm.handlers import control, cpuid, io, mmio, msr, spec_msrs, vmcall
from vmm.memory import ept, linear, paging, rights
from vmm.memory import guest as memory
from vmm.memory.e820 import e820, ram
from vmm.memory.fill import ones
from vmm.policies import arming, monitortrap, policy, stepper, trapflag
from vmm.scheduling import clock, states
from vmm.scheduling.preemption import rouse
from vmm.scheduling.scheduled import Scheduled
from vmm.vtx import apicv, breakpoints, events, exits, msr_bitmap, reasons, vcpu
from vmm.vtx.x86 import PAGE

_LARGE = const(0x200000)
_LOG_LINES = const(64)
# What a destroyed VM no longer has.
_PARTS = (
    "memory", "ept", "rights", "clock", "msrs", "spec_msrs", "ports", "mmio", "stepper", "walker", "linear", "pc",
    "console", "lapic", "exits", "vcpu", "events", "arming",
)  # fmt: skip
_AGAIN = ": again and again; it is held in reset for longer each time, until it stays up"
_GRACES = const(10000)  # a second: so long a guest runs on when it has given another something to do


class VM(Scheduled):
    """One guest. Attributes for users: name, state, vcpu, memory, clock, ports, mmio, msrs, policies."""

    def __init__(self, monitor, config, blobs, host_uart, vpid):
        self.monitor = monitor
        self.config = config
        self.name = config["name"]
        self.why = "not started"
        self.messages = []
        self.refused = {}
        self.chains = {}  # exit reason: the policies in front of its handlers
        self.policies = []
        self.powered = False
        self.bios = None  # vmm.handlers.bios.Bios where its program wants one
        self.windows = []  # its sides of shared memory (vmm/ties/shared.py)
        self._below = False
        self._blobs = blobs
        self._taken = []
        self._was = states.RUNNING  # what it goes back to by resume()
        try:
            self._build(config, host_uart, vpid)
        except BaseException:
            self.release()
            raise

    def _take(self, size, align=PAGE):
        hpa = self.monitor.pages.take(size, align)
        self._taken.append(hpa)
        return hpa

    def take_page(self):
        """A page of host memory that is this VM's until its end: its hpa. OutOfMemory."""
        return self._take(PAGE)

    def _build(self, config, host_uart, vpid):
        monitor = self.monitor
        caps = monitor.caps
        self.vpid = vpid
        size = config["memory"]
        align = _LARGE if size >= _LARGE else PAGE
        segments = [(gpa, length, self._take(length, align)) for gpa, length in ram(size)]
        self.memory = memory.GuestMemory(segments)
        self.e820 = e820(size)
        self.ept = ept.Ept(monitor.pages, caps.page_sizes)
        self.rights = rights.Rights(self.ept, caps.ept_vpid.EXECUTE_ONLY)
        self.demand_paging = config.get("demand_paging") or False
        if not self.demand_paging:
            for gpa, length, hpa in segments:
                self.ept.map(gpa, hpa, length)
        self.io_bitmap = self._take(2 * PAGE)
        ones(self.io_bitmap, 2 * PAGE)
        self.msr_bitmap = self._take(PAGE)

        xcr0 = monitor.xcr0
        self.clock = clock.Clock(cpu.tsc_hz, cpu.rdtsc)
        self.cpuid = cpuid.Cpuid(cpu.cpuid, caps, cpu.tsc_hz, xcr0, monitor.compacts)
        self.cr4_allowed = self.cpuid.cr4_allowed()
        self.xcr0_allowed = self.cpuid.xcr0
        live = list(msr.LIVE)
        if self.cpuid.has_rdtscp:
            live.append(msr.IA32_TSC_AUX)
        if self.cpuid.has_xsaves:
            live.append(msr.IA32_XSS)
        self.msrs = msr.Msrs(msr_bitmap.Bitmap(self.msr_bitmap), cpu.rdmsr, self.clock, live)
        self.spec_msrs = spec_msrs.SpecMsrs(self.msrs, monitor.mitigations, cpu.wrmsr)
        self.port_bus = bus.PortBus()
        self.mmio_bus = bus.MmioBus()
        self.ports = io.PortIo(self.port_bus)
        self.walker = self.new_walker()
        self.breakpoints = breakpoints.Breakpoints()
        self.linear = linear.Linear(self)
        self.mmio = mmio.Mmio(self, self.mmio_bus)
        self.hypercalls = vmcall.Hypercalls()
        ways = (trapflag.TrapFlag(self),)
        if monitor.trial.mtf:
            ways = (monitortrap.MonitorTrap(self),) + ways
        self.stepper = stepper.Stepper(self, ways)
        self.pc = pc.Pc(self, host_uart)
        for end in monitor.links.ends(self.name):
            self.pc.com(end.number)  # before exits are given their handlers: fast ports are those that are there then
        self.console = self.pc.console
        self.console.attach = self.attach
        self.lapic = self.pc.lapic
        self.apicv = None
        if caps.apicv:
            self.apicv = apicv.Apicv(self.lapic, self.msrs.bitmap, caps.found["proc2"].VIRTUALIZE_X2APIC_MODE)

        self.exits = exits.Exits(self.report)
        handlers.install(self, self.exits)
        self.vcpu = vcpu.make(self, caps, self._take, self.exits, live)
        vcpu.prepare(self.vcpu, caps, vpid)
        self.events = self.vcpu.events = events.Events(self.vcpu, caps.used["proc"].raw)
        self.pc.connect(self.events, self.vcpu.pages_used[1])
        self.msrs.attach(self.vcpu, 0)
        self.spec_msrs.attach(self.vcpu)
        if self.apicv:
            access_page = self._take(PAGE)
            self.ept.map(pc.LAPIC, access_page, PAGE)
            self.apicv.attach(self.vcpu, self.pc.apic_page, access_page)
            self.events.sync = self.apicv.sync
        self.ept.invalidate = self.flush
        self.arming = arming.Arming(self, [self.vcpu], vcpu.EXCEPTIONS)
        self.schedule(
            self.vcpu.pages_used[1], self.pc.apic_page, config.get("priority") or 0, config.get("share") or 100
        )
        self.clock.attach(self.vcpu)
        self.ports.attach(self.vcpu)
        monitor.windows.join(self, config.get("shared") or [])
        self.cpuid.windows = self.windows
        self.backoff = backoff.Backoff(self)
        self.exits.add(reasons.PENDING, self.events.handler(self.pc.apic_page, self.pc.acknowledge))

    def kick(self):
        """An interrupt may have become deliverable."""
        self.vcpu.pending = 1

    def rouse(self):
        """Another guest, which runs now, has given this one something to do: that one's turn ends soon."""
        rouse(self.monitor.scheduler, self._frame, cpu.rdtsc() + cpu.tsc_hz // _GRACES)

    def more_typed(self):
        """Characters wait for the room that its console's UART has now: they come when its turn ends, soon."""
        self.monitor.scheduler.poll_later()
        self.clock.cut(cpu.tsc_hz // _GRACES)

    def nmi(self):
        """Raise an NMI in the guest."""
        self.hold(1)
        try:
            self.events.nmi()
        finally:
            self.hold(-1)

    # -- life

    def start(self):
        """Load the guest's images and let it run. loaders.LoadError says what is wrong with one."""
        self._check("started")
        self.steadily(self._start_anew)

    def _start_anew(self):
        self.backoff.forgive()
        self._start()

    def _start(self):
        self._stand(states.OFF, "not started")  # those that go before it may run meanwhile, it may not
        self.due(0)
        try:
            cpu.uncounted(self._load)  # a policy may ask for it
        except BaseException:
            self._power(False)
            raise
        self.catch_up()
        self._stand(states.RUNNING, "")
        self._power(True)

    def _load(self):
        """Memory, devices and the vCPU as they are at the start."""
        segments = self.memory.segments
        for _, length, hpa in segments:
            cpu.zero(hpa, length)
        self.starts += 1
        self.backoff.release()
        self.stepper.reset()
        self.breakpoints.reset()
        self.uncover()
        if self.demand_paging:
            for gpa, length, hpa in segments:
                self.ept.defer(gpa, hpa, length)
        for side in self.windows:
            side.acknowledge()
        self.pc.reset()
        self.msrs.reset()
        self.spec_msrs.reset()
        self.clock.skew = 0
        rsdp = self.pc.tables()
        state = loaders.load(self.memory, self.config, self._blobs, self.e820, rsdp)
        if state.bios:
            self._start_bios()
        self.clock.skew = -self.clock.now()
        self.vcpu.start(state)
        self.ports.outcome = verdict.ADVANCE
        if self.apicv:
            self.apicv.reset()
        self.flush()
        self.backoff.started()

    def _start_bios(self):
        """BIOS services for a program that is entered in real mode."""
        if self.bios is None:
            from vmm.handlers.bios import Bios

            self.bios = Bios(self)
        self.bios.start()

    def _power(self, on):
        """The cables of its UARTs: a guest that is off holds no line up."""
        self.powered = on
        for end in self.monitor.links.ends(self.name):
            end.power(on)

    def pause(self):
        """Let the guest stand still; its time goes on."""
        self.steadily(self._pause)

    def _pause(self):
        if self.state in (states.RUNNING, states.HALTED):
            self._was = self.state
            self.state = states.PAUSED
            self.why = "by pause()"
            self.due(0)

    def resume(self):
        """Let a paused or stopped guest go on from where it stands."""
        self.steadily(self._resume)

    def _resume(self):
        if self.state in (states.PAUSED, states.STOPPED):
            self.catch_up()
            self.state, self._was = self._was, states.RUNNING
            self.why = ""

    def reset(self):
        """Start again from the images, as the reset button does; policies stay attached."""
        self.start()

    def power_off(self):
        """Stop the guest for good; start() boots it anew."""
        self.steadily(self._power_off)

    def _power_off(self):
        if self.state != states.OFF:
            self.state = states.OFF
            self.why = "by power_off()"
            self._power(False)

    def destroy(self):
        """Give back everything that the guest had. What the object is asked to do afterwards it refuses."""
        self._check("destroyed")
        if self.monitor.scheduler.inside is self:
            raise RuntimeError("guest %s is in an exit of its own: it cannot be destroyed there" % self.name)
        self.hold(1)  # to its end
        try:
            cpu.shield(self._destroy)
        except BaseException:
            self.hold(-1)
            raise

    def _destroy(self):
        for attached in list(self.policies):
            attached.detach()
        self._stand(states.OFF, "destroyed")
        self.monitor.forget(self)
        self.memory.forget()
        self.release()
        self.unschedule()
        gone = Gone(self.name)
        for part in _PARTS:
            setattr(self, part, gone)

    def _check(self, what):
        if isinstance(self.vcpu, Gone):
            raise RuntimeError("guest %s has been destroyed" % self.name)
        if self.monitor.scheduler.interrupts(self._frame):
            raise RuntimeError("guest %s is in the middle of an exit: it cannot be %s there" % (self.name, what))
        if self.held:
            raise RuntimeError("guest %s is in the middle of a change: it cannot be %s there" % (self.name, what))

    def release(self):
        """Give back host memory."""
        if getattr(self, "vcpu", None) is not None:
            self.vcpu.retire()  # no CPU knows its VMCS and its frame any more
        if getattr(self, "ept", None) is not None:
            self.ept.release()
        self.monitor.windows.leave(self)
        for hpa in self._taken:
            self.monitor.pages.give(hpa)
        self._taken = []

    # -- for the scheduler

    def below(self, others):
        """Whether there are others of a higher priority: then WBINVD of this one must not hold them up."""
        if others != self._below and self.monitor.caps.found["proc2"].WBINVD_EXITING:
            self._below = others
            control.exit_at_wbinvd(self.vcpu, others)

    def runs(self):
        """Whether it may be entered again."""
        return self.state == states.RUNNING

    def apply(self, answer):
        """What the exit loop came back with. A guest that was paused, or switched off, in that exit stays so."""
        paused = self.state == states.PAUSED
        if self.state == states.OFF:
            pass
        elif answer & verdict.RESET and self.backoff.held:
            self._reset_itself(self.why)
        elif answer & verdict.TRIPLE_FAULT:
            self._ended("on_triple_fault", "reset", "triple fault at %#x" % self.vcpu.rip)
        elif answer & verdict.RESET:
            self._ended("on_reset", "reset", "reset by the guest")
        elif answer & verdict.POWER_OFF:
            self._ended("on_power_off", "power-off", "powered off by the guest")
        elif answer & verdict.STOP:
            self._stand(states.STOPPED, "see the report")
        elif paused:
            if answer & verdict.WAIT:
                self._was = states.HALTED
        elif answer & verdict.PAUSE:
            self._stand(states.PAUSED, "by a policy")
        elif answer & verdict.WAIT and not self.wakes():
            self.state = states.HALTED
        if paused:
            self._pause()
        if self.state == states.OFF:
            self._power(False)

    def _stand(self, state, why):
        """Stand still; from a stop or a pause resume() lets it run."""
        self.state, self.why, self._was = state, why, states.RUNNING
        self.due(0)

    def fail(self, why):
        """It cannot go on, for a reason that is not its own."""
        if self.state != states.OFF:
            self._stand(states.STOPPED, why)
            self.log("stopped: " + why)

    def _ended(self, key, default, why):
        """The guest has come to an end of its own making: the description says what follows."""
        response = self.config.get(key) or default
        if response == "reset":
            self._reset_itself(why)
        else:
            self.log(why)
            self._stand(states.STOPPED if response == "stop" else states.OFF, why)

    def _reset_itself(self, why):
        held = self.backoff.held
        ms = 0 if held else self.backoff.wait_ms()
        if not held and self.backoff.says():
            self.log(why + (_AGAIN if ms else ""))
        if ms:
            self.backoff.hold(ms)
            return
        self._stand(states.OFF, why)
        try:
            self._start()
        except Exception as error:  # its images have become bad: nobody else suffers from that
            self.log("does not start again: %s: %s" % (type(error).__name__, error))

    def next_timer(self):
        """Host TSC of the guest's next timer, 0 where none is armed."""
        when = self.clock.next
        return max(when - self.clock.offset, 1) if when else 0

    def wake(self):
        """Halted: call back due timers; True when that or a device brought an event: it runs again."""
        clock_ = self.clock
        if clock_.next and clock_.next <= clock_.now():
            self.due(self.next_timer())
            clock_.expire()
            if not self.wakes():
                clock_.park()
        if self.wakes():
            self.woken()
            self.catch_up()
            self.state = states.RUNNING
            return True
        self.due(0)
        return False

    # -- policies

    def on(self, event, **filters):
        """Decorator: attach a function to an event (vmm/policies/policy.py); it becomes the Policy."""
        return policy.decorator(self, event, filters)

    # -- memory

    def cover(self, gpa):
        """A device's page lies at gpa: RAM that is there is out of reach."""
        if self.memory.has(gpa):
            self.ept.touch(gpa)
            self.rights.take(gpa, self, ept.RWX)
            self.flush()
            self.memory.covered = gpa >> 12

    def uncover(self):
        """What cover() hid is there again, as far as policies let it."""
        gpa = self.memory.covered << 12
        if gpa >= 0:
            self.memory.covered = -1
            self.rights.take(gpa, self, 0)
            self.flush()
            self.ept.join(gpa)

    def touched(self):
        """Return [(gpa, bytes), ...] of its RAM that the guest has touched since it was started.

        All of it, unless its description asks for demand_paging.
        """
        return [run for gpa, size, _ in self.memory.segments for run in self.ept.touched(gpa, size)]

    def flush(self):
        """Forget the CPU's translations for this guest."""
        self.monitor.flush(self)

    def load_walker(self, vcpu):
        """Return the page walker, set to the vCPU's present mode."""
        self.walker.follow(vcpu)
        return self.walker

    def new_walker(self):
        """Return a page walker of its own; it wants loading."""
        return paging.Walker(self.memory, self.cpuid.leaf(0x80000008, 0)[0] & 0xFF)

    def walk(self, vcpu, gva):
        """Return the gpa of gva, or None; rights and accessed flags are left alone."""
        gpa = self.load_walker(vcpu).translate(gva, paging.PEEK)
        return None if gpa < 0 else gpa

    def physical_read(self, gpa, size):
        """What the guest's CPU would read at a gpa: RAM, or devices (bus.py says by which accesses). Bytes."""
        if self.memory.has(gpa, size):
            return self.memory.read(gpa, size)
        return self.mmio_bus.read_bytes(gpa, size)

    def physical_write(self, gpa, data):
        if self.memory.has(gpa, len(data)):
            self.memory.write(gpa, data)
        else:
            self.mmio_bus.write_bytes(gpa, data)

    def physical_load(self, gpa, size):
        """physical_read as an int; a device sees one access where `size` is 1, 2, 4 or 8."""
        if not self.memory.has(gpa, size) and size in (1, 2, 4, 8):
            return self.mmio_bus.read(gpa, size)
        return int.from_bytes(self.physical_read(gpa, size), "little")

    def physical_store(self, gpa, size, value):
        """physical_write of an int."""
        if not self.memory.has(gpa, size) and size in (1, 2, 4, 8):
            self.mmio_bus.write(gpa, size, value)
        else:
            self.physical_write(gpa, value.to_bytes(size, "little"))

    # -- for people

    def _keep(self, text):
        self.messages.append(text)
        del self.messages[:-_LOG_LINES]

    def log(self, text):
        """A line about this guest for the user."""
        self._keep(text)
        self.monitor.journal.say(self.name, text)

    def log_error(self, text, error):
        """As log, with an exception's traceback."""
        out = io_streams.StringIO()
        sys.print_exception(error, out)
        self._keep(text)
        self.monitor.journal.say(self.name, text + "\n" + out.getvalue().rstrip())

    def report(self, vcpu, text):
        """Dump: why the guest cannot go on, and its registers."""
        self._keep(text)
        rest = "exit reason %d, qualification %#x, instruction length %d\n%s" % (
            vcpu.reason & 0xFFFF, vcpu.qualification, vcpu.length, vcpu.registers(),
        )  # fmt: skip
        self.monitor.journal.say(self.name, text + "\n" + rest)

    def count_refused(self, what):
        """One more of `what`: words that no number of the guest's choice is in."""
        tally.count(self.refused, what)

    def exit_counts(self):
        """Return {reason name: (exits, host ticks)}."""
        return self.exits.statistics()

    def unclaimed(self):
        """Return what the guest tried and no handler or device answers: {kind: {what: count}}."""
        return {
            "ports": self.port_bus.unclaimed,
            "memory": self.mmio_bus.unclaimed,
            "msrs": self.msrs.unclaimed,
            "cpuid": self.cpuid.unknown,
            "hypercalls": self.hypercalls.unclaimed,
            "refused": self.refused,
        }

    def screen(self):
        """Return its VGA text screen as it is now (vmm/screen.py): printed it is the rows; text, cursor."""
        return screen.Screen(self.memory, self.pc.vga)

    def attach(self, key=terminal.DETACH):
        """Put this guest's console on the prompt's terminal until `key` (Ctrl-]) is typed."""
        terminal.attach(self.monitor, self, key)

    def __repr__(self):
        if isinstance(self.vcpu, Gone):
            return "<VM %s: destroyed>" % self.name
        return "<VM %s: %s%s, %d MiB, rip %#x>" % (
            self.name, self.state, " (%s)" % self.why if self.why else "", self.memory.size >> 20, self.vcpu.rip,
        )  # fmt: skip
