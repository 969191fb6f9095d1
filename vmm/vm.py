"""A virtual machine: memory, tables, devices and vCPUs, and what the prompt can do to it.

    vms['linux'].pause(); vms['linux'].vcpu.rip; vms['linux'].resume()

A VM is made by vmm.monitor.Monitor.create from a guest's JSON (docs/guests.md). Here is what it is made of; its life is
vmm/life.py, its physical address space vmm/physical.py, its place in the schedule vmm/scheduling/scheduled.py.
"""

import io as io_streams
import sys

import cpu
from micropython import const

from vmm import apic_bus, backoff, bus, handlers, pc, processors, screen, tally, terminal
from vmm.debug.debugged import Debugged
from vmm.gone import Gone
from vmm.handlers import cpu_msrs, cpuid, io, mmio, msr, spec_msrs, vmcall
from vmm.insight.exits.view import Exits
from vmm.insight.inside import Inside
from vmm.life import Life
from vmm.memory import ept, linear, rights
from vmm.memory import guest as memory
from vmm.memory.e820 import e820, ram
from vmm.memory.fill import ones
from vmm.physical import Physical
from vmm.policies import arming, chain, policy
from vmm.scheduling.interleave import Interleaved
from vmm.scheduling.preemption import GRACES
from vmm.scheduling.scheduled import ScheduledVm
from vmm.vtx import making
from vmm.vtx.vmcs_bits import CONTROL_PAUSE_EXITING
from vmm.vtx.x86 import IA32_TSC_AUX, IA32_XSS, PAGE

_LARGE = const(0x200000)
_ROOM = const(73)  # for its attributes: they would come to 59 entries and use 58 (port/names.c)
_LOG_LINES = const(64)
_TRACE_LINES = const(24)


class VM(Life, Physical, ScheduledVm, Interleaved, Inside, Debugged):
    """One guest.

    For users: attach, clock, config, console, cpuid, e820, ept, events, exit_counts, exits, firmware, hidden,
    keyboard, lapic, log, memory, messages, mmio, mouse, msrs, name, name_of, nmi, on, pc, policies, ports, rights,
    screen, screenshot, symbols, unclaimed, vcpu, vcpus, why, windows.

    Example:

        vm = vms["linux"]
        vm.pause(); vm.vcpu; vm.resume()
    """

    def __init__(self, monitor, config, blobs, host_uart, vpids):
        """vpids: one for each vCPU."""
        cpu.room(self, _ROOM)
        self.monitor = monitor
        self.config = config  # its description, a dict (docs/guests.md)
        self.name = config["name"]  # as in vms["..."]
        self.why = "not started"  # what it stands still for, a text
        self.messages = []  # its last lines on the prompt
        self.refused = {}
        self.chains = {}  # exit reason: the policies in front of its handlers
        self.policies = []  # those attached
        self.powered = False
        self.debugger = None  # vmm.debug.gdb.guest.Guest while gdb is attached
        self.bios = None  # vmm.handlers.bios.Bios where its program needs one
        self.windows = []  # its sides of shared memory (vmm/ties/shared.py)
        self._below = False
        self.blobs = blobs  # {name: buffer}, its boot modules
        self._symbols = None
        self._entries = None
        self.current_task = None  # vmm.insight.linux.current.Current, from its first use on
        self._hidden = None
        self.vcpus = []  # its processors; vcpu is the first
        self.expansion = None  # vmm.expansion.Expansion, where its file asks for it
        self.firmware = None  # vmm.firmware.Firmware, where it has one of its own
        self._scheduled = []
        self._taken = []
        self._init = None  # why it is to be reset
        self.ends = []  # how its last runs ended: vmm.life.End
        self.deaths = None  # vmm.debug.explain.Deaths, once it has come to a triple fault
        self._kernel = None  # vmm.insight.kernel.Kernel, from its first use on
        try:
            self._build(config, host_uart, vpids)
        except BaseException:
            self.release()
            raise

    def take(self, size, align=PAGE):
        """Host memory that is this VM's until its end: its hpa. OutOfMemory."""
        hpa = self.monitor.pages.take(size, align)
        self._taken.append(hpa)
        return hpa

    def take_page(self):
        """A page of host memory that is this VM's until its end: its hpa. OutOfMemory."""
        return self.take(PAGE)

    def give(self, hpa):
        """Give back what take() returned, before the VM's end."""
        self._taken.remove(hpa)
        self.monitor.pages.give(hpa)

    def _build(self, config, host_uart, vpids):
        monitor = self.monitor
        caps = monitor.caps
        self.vpids = vpids
        cpus = len(vpids)
        size = config["memory"]
        align = _LARGE if size >= _LARGE else PAGE
        segments = [(gpa, length, self.take(length, align)) for gpa, length in ram(size)]
        self.memory = memory.GuestMemory(segments)  # its RAM by gpa: read, write, read_u64, ...
        self.e820 = e820(size)  # ((gpa, bytes, kind), ...) as the guest gets it
        self.ept = ept.Ept(monitor.pages, caps.page_sizes)
        self.rights = rights.Rights(self.ept, caps.ept_vpid.EXECUTE_ONLY)
        self.demand_paging = config.get("demand_paging") or False
        if not self.demand_paging:
            for gpa, length, hpa in segments:
                self.ept.map(gpa, hpa, length)
        self.io_bitmap = self.take(2 * PAGE)
        ones(self.io_bitmap, 2 * PAGE)

        others = [other.cpuid for other in monitor.vms.values() if other.cpuid.cpus == cpus]
        self.cpuid = cpuid.Cpuid(
            cpu.cpuid, caps, cpu.tsc_hz, monitor.xcr0, monitor.compacts, others[0] if others else None, cpus
        )
        self.cr4_allowed = self.cpuid.cr4_allowed()
        self.xcr0_allowed = self.cpuid.xcr0
        live = list(cpu_msrs.LIVE)
        if self.cpuid.has_rdtscp:
            live.append(IA32_TSC_AUX)
        if self.cpuid.has_xsaves:
            live.append(IA32_XSS)
        self.msrs = msr.Msrs(cpu.rdmsr, live, self.cpuid.width)
        self.spec_msrs = spec_msrs.SpecMsrs(self.msrs, monitor.mitigations, cpu.wrmsr)
        self.port_bus = bus.PortBus()
        self.mmio_bus = bus.MmioBus()
        self.ports = io.PortIo(self.port_bus)
        self.walker = self.new_walker()
        self.linear = linear.Linear(self)
        self.mmio = mmio.Mmio(self, self.mmio_bus)
        self.hypercalls = vmcall.Hypercalls()
        self.exits = Exits(self.report)  # top(), trace(): what exits, and what it costs
        for number in range(cpus):
            processors.make(self, number, vpids[number], live)
        self.arming = arming.Arming(self, self.vcpus, making.EXCEPTIONS)
        first = self.vcpu
        self.clock, self.lapic, self.events = first.clock, first.lapic, first.events  # short names
        self.apic_bus = apic_bus.ApicBus(monitor.scheduler, self.vcpus, processors.initialize, processors.start_up)
        self.pc = pc.Pc(self, host_uart)  # its chips
        for end in monitor.links.ends(self.name):
            self.pc.com(end.number)  # before exits are given their handlers: fast ports are those that are there then
        self.expansion = self.pc.expansion
        self.firmware = self.pc.firmware  # printed, what it has said
        self.console = self.pc.console  # console() attaches; console.tail(): what it last printed
        self.console.attach = self.attach

        self.schedule(config.get("priority") or 0, config.get("share") or 100)
        processors.connect(self)
        handlers.install(self, self.exits)
        self.exits.arm()
        self.ept.invalidate = self.flush
        if cpus > 1 and not caps.found["proc2"].PAUSE_LOOP_EXITING:
            self.arming.primary(CONTROL_PAUSE_EXITING, 1)  # each PAUSE is taken for a loop's
        self.ports.attach(self)
        monitor.windows.join(self, config.get("shared") or [])
        self.cpuid.windows = self.windows
        self.backoff = backoff.Backoff(self)
        self.hide_stops = config.get("hide_stops") or False

    @property
    def vcpu(self):
        """The first vCPU, which most guests have alone."""
        return self.vcpus[0]

    def preempt_soon(self):
        """Another guest, which runs now, has given this one something to do: that one's turn ends soon."""
        for scheduled in self._scheduled:
            self.monitor.scheduler.preempt_soon(scheduled.frame)

    def more_typed(self):
        """Characters wait for the room that its console's UART has now: they come when its turn ends, soon."""
        self.monitor.scheduler.poll_later()
        self.current.clock.cut(cpu.tsc_hz // GRACES)

    def nmi(self):
        """Raise an NMI, which reaches LINT1 of the first vCPU."""
        self.events.nmi()

    # -- policies

    def chain(self, reason):
        """The Chain of an exit reason's policies."""
        if reason not in self.chains:
            self.chains[reason] = chain.Chain(self, reason)
        return self.chains[reason]

    @property
    def entries(self):
        """The system calls that exit for policies (vmm/policies/entries.py)."""
        if self._entries is None:
            from vmm.policies.entries import Entries

            self._entries = Entries(self)
        return self._entries

    @property
    def hidden(self):
        """Breakpoints that the guest does not see (vmm/debug/hidden.py)."""
        if self._hidden is None:
            from vmm.debug.hidden import Hidden

            self._hidden = Hidden(self)
        return self._hidden

    def on(self, event, **filters):
        """Decorator: attach a function of the vCPU to an event of this guest; the function's name is the Policy then.

        event: CPUID, IO, RDMSR and so on, or the name as text; help(IO) has the filters of one, vm.on(<Tab> the events.
        The function answers None or DEFAULT (as without it), HANDLED, SKIP, RETRY, PAUSED, Inject(vector, error) or
        Value(number). Several are asked in the order of attachment until one answers. ValueError at once for a filter
        that makes no sense. policy.hits, policy.ticks and policy.detach(); vm.policies lists all.

        Example:

            @vm.on(IO, port=0x3f8, write=True)
            def seen(vcpu):
                print(chr(vcpu.rax & 0xff))
        """
        return policy.decorator(self, event, filters)

    # -- for people

    @property
    def symbols(self):
        """Names and addresses of what runs in the guest (vmm/insight/symbols.py): symbols["name"], symbols.at(gva)."""
        if self._symbols is None:
            from vmm.insight.symbols import Symbols

            self._symbols = Symbols(self)
        return self._symbols

    def name_of(self, gva):
        """What is printed behind an address: " do_idle+0x1c"; "" until `symbols` has been used."""
        return self._symbols.behind(gva) if self._symbols is not None else ""

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
        lines = out.getvalue().rstrip().split("\n")
        if len(lines) > _TRACE_LINES:  # endless recursion has thousands
            left_out = len(lines) - _TRACE_LINES
            lines[_TRACE_LINES // 2 : -_TRACE_LINES // 2] = ["  ... %d more calls" % left_out]
        self.monitor.journal.say(self.name, text + "\n" + "\n".join(lines))

    def report(self, vcpu, text):
        """Dump: why the guest cannot go on, and its registers."""
        self._keep(text)
        rest = "exit reason %d, qualification %#x, instruction length %d\n%s" % (
            vcpu.reason, vcpu.qualification, vcpu.length, vcpu.registers(),
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
        """Return its VGA screen as it is now (vmm/screen.py): printed it is the rows; text, cursor. In a mode with
        graphics: width, height, bits."""
        return screen.of(self.memory, self.pc.vga)

    def screenshot(self, file):
        """Have the host write a picture of its screen, such as "x.png". The file's path is the host's, from the
        directory of `pcanel run`."""
        from vmm.debug import mailbox
        from vmm.insight import facts

        mailbox.write("screenshot", self, file, facts.screen)

    @property
    def keyboard(self):
        """Its PS/2 keyboard (keyboard.py): vm.keyboard.type("root\\n"), vm.keyboard.press("ctrl", "alt", "delete")."""
        return self.pc.typing()

    @property
    def mouse(self):
        """Its PS/2 mouse (vmm/pointer.py): vm.mouse.move(10, 0), vm.mouse.click("left"). ValueError: it has none."""
        from vmm.pointer import Pointer

        mouse = self.pc.keyboard.mouse
        if mouse is None:
            raise ValueError('guest %s has no mouse: screen = "graphics" in its file gives it one' % self.name)
        return Pointer(mouse)

    def attach(self, key=terminal.DETACH):
        """Put this guest's console on the prompt's terminal until `key` (Ctrl-]) is typed."""
        terminal.attach(self.monitor, self, key, self.console)

    def __repr__(self):
        if isinstance(self.vcpu, Gone):
            return "<VM %s: destroyed>" % self.name
        place = "%#x%s" % (self.vcpu.rip, self.name_of(self.vcpu.rip))
        return "<VM %s: %s%s, %d MiB, rip %s>" % (
            self.name, self.state, " (%s)" % self.why if self.why else "", self.memory.size >> 20, place,
        )  # fmt: skip
