"""A virtual machine: memory, tables, devices and one vCPU, and what the prompt can do to it.

    vms['linux'].pause(); vms['linux'].vcpu.rip; vms['linux'].resume()

A VM is made by vmm.monitor.Monitor.create from a guest's JSON (docs/guests.md). Here is what it is made of; its life is
vmm/life.py, its physical address space vmm/physical.py, its place in the schedule vmm/scheduling/scheduled.py.
"""

import io as io_streams
import sys

import cpu
from micropython import const

from vmm import backoff, bus, handlers, pc, screen, tally, terminal
from vmm.gone import Gone
from vmm.handlers import cpuid, io, mmio, msr, spec_msrs, vmcall
from vmm.life import Life
from vmm.memory import ept, linear, rights
from vmm.memory import guest as memory
from vmm.memory.e820 import e820, ram
from vmm.memory.fill import ones
from vmm.physical import Physical
from vmm.policies import arming, monitortrap, policy, stepper, trapflag
from vmm.scheduling import clock, states
from vmm.scheduling.preemption import rouse
from vmm.scheduling.scheduled import Scheduled, ScheduledVm
from vmm.vtx import apicv, breakpoints, events, exits, msr_bitmap, reasons, tpr_shadow, vcpu
from vmm.vtx.x86 import PAGE

_LARGE = const(0x200000)
_LOG_LINES = const(64)
_GRACES = const(10000)  # a second: so long a guest runs on when it has given another something to do


class VM(Life, Physical, ScheduledVm):
    """One guest. Attributes for users: name, state, vcpus, vcpu (the first of them), memory, clock, ports, mmio, msrs,
    policies."""

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
        self.vcpus = []
        self._scheduled = []
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
        other = next(iter(monitor.vms.values()), None)
        self.cpuid = cpuid.Cpuid(cpu.cpuid, caps, cpu.tsc_hz, xcr0, monitor.compacts, other.cpuid if other else None)
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
        self.tpr_shadow = tpr_shadow.TprShadow(self.lapic) if caps.tpr_shadow else None

        self.exits = exits.Exits(self.report)
        handlers.install(self, self.exits)
        first = vcpu.make(self, caps, self._take, self.exits, live)
        self.vcpus = [first]
        vcpu.prepare(first, caps, vpid)
        self.events = events.Events(first, caps.used["proc"].raw)
        self.pc.connect(self.events, first.frame_hpa)
        self.msrs.attach(first, 0)
        self.spec_msrs.attach(first)
        if self.apicv:
            access_page = self._take(PAGE)
            self.ept.map(pc.LAPIC, access_page, PAGE)
            self.apicv.attach(first, self.pc.apic_page, access_page)
            self.events.sync = self.apicv.sync
        if self.tpr_shadow:
            self.tpr_shadow.attach(first, self.pc.apic_page)
            self.events.limit = self.tpr_shadow.update
        self._give_parts(first)
        self.ept.invalidate = self.flush
        self.arming = arming.Arming(self, self.vcpus, vcpu.EXCEPTIONS)
        self.schedule(config.get("priority") or 0, config.get("share") or 100)
        self.clock.attach(first)
        self.ports.attach(self.vcpu)
        monitor.windows.join(self, config.get("shared") or [])
        self.cpuid.windows = self.windows
        self.backoff = backoff.Backoff(self)
        self.exits.add(reasons.PENDING, self.events.handler(self.pc.apic_page, self.pc.acknowledge))

    def _give_parts(self, vcpu):
        """What there is once for each vCPU hangs on it; the VM has short names for those of the first."""
        vcpu.events, vcpu.lapic, vcpu.apicv, vcpu.clock = self.events, self.lapic, self.apicv, self.clock
        vcpu.tpr_shadow = self.tpr_shadow
        vcpu.exits, vcpu.breakpoints, vcpu.stepper = self.exits, self.breakpoints, self.stepper
        vcpu.msrs, vcpu.spec_msrs = self.msrs, self.spec_msrs
        vcpu.scheduled = Scheduled(vcpu.frame_hpa, self.pc.apic_page)
        self._scheduled.append(vcpu.scheduled)

    @property
    def vcpu(self):
        """The first vCPU, which most guests have alone."""
        return self.vcpus[0]

    def kick(self):
        """An interrupt may have become deliverable."""
        self.vcpu.pending = 1

    def rouse(self):
        """Another guest, which runs now, has given this one something to do: that one's turn ends soon."""
        rouse(self.monitor.scheduler, self._scheduled[0].frame, cpu.rdtsc() + cpu.tsc_hz // _GRACES)

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

    # -- policies

    def on(self, event, **filters):
        """Decorator: attach a function to an event (vmm/policies/policy.py); it becomes the Policy."""
        return policy.decorator(self, event, filters)

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
