"""The monitor: one object that owns the CPU's VMX operation, host memory and the machines.

    monitor = Monitor()          # VMX root operation, where the CPU has it
    vm = monitor.create(config, blobs)
    vm.start()

vmm/boot.py makes the guests that came with the image, vmm/host_uarts.py gives them their consoles.
"""

import gc
import struct
import sys

import cpu
import multiboot
import uctypes
import vmx
from micropython import const

from vmm import description, journal, machine_check
from vmm.debug.gdb.line import GdbLine
from vmm.host_uarts import HostUarts
from vmm.machines import Machines
from vmm.memory import pages
from vmm.memory.e820 import RAM
from vmm.scheduling import sched
from vmm.scheduling.preemption import hold
from vmm.ties import link, shared
from vmm.vm import VM
from vmm.vtx import caps as caps_module
from vmm.vtx import controls, mitigations, trial
from vmm.vtx.vmcs_bits import INVEPT_SINGLE_CONTEXT, INVVPID_SINGLE_CONTEXT
from vmm.vtx.x86 import CR4_OSXSAVE, CR4_VMXE, PAGE

_GUEST_HEAP = const(64 << 10)  # bytes of heap that a guest takes at least
_SCARCE = const(4)  # part of the heap: with less than that in one piece, holes are filled first
_NEW = const(8)  # part of the heap: allocations after which the search for holes is worth repeating
_KEPT = const(8)  # part of the heap that new guests leave to the prompt and to destroy(): an eighth
_NAMED = const(4)  # guests that a line names at most
_CTRL_D = b"\x04"


class NoVmx(RuntimeError):
    """Guests cannot run here; the text names the missing capability."""


class Monitor:
    """The one object that owns the CPU and all guests.

    For users: active, caps, create, drives, journal, links, machine_checks, mitigations, pages, scheduler, switches,
    trial, uarts, vms, windows, xcr0.
    """

    def __init__(self):
        self.caps = caps_module.Caps(cpu.cpuid, cpu.rdmsr)  # what the CPU's VMX offers, and what of it is used
        self.mitigations = mitigations.Mitigations(cpu.cpuid, cpu.rdmsr, _mitigated())
        self.vms = Machines()  # the guests by name
        self.pages = pages.Pages(_free_memory(), cpu.zero, cpu.hold)  # host memory: available, largest, take(), give()
        for start, size in _taken_memory():
            self.pages.reserve(start, size)
        self.journal = journal.Journal(cpu.rdtsc, cpu.tsc_hz, cpu.reading)  # lines about guests on the prompt
        self.machine_checks = machine_check.MachineChecks(cpu, self.journal, self.vms)
        self._most = cpu.heap()[0] // _GUEST_HEAP
        self.scheduler = sched.Scheduler(cpu.tsc_hz, self._most)
        self.scheduler.say = self.journal.say
        self.scheduler.defer(self._settle)
        self.links = link.Links(self.scheduler)  # cables between the UARTs of guests
        self.windows = shared.Windows(self.pages, self.scheduler)  # memory that guests share
        self._vpids = list(range(self._most, 0, -1))  # of 65535, which no heap reaches
        self.uarts = HostUarts(self.links, self.scheduler.watch_consoles)
        self._switches = None
        self._peak = 0  # most guests so far: a destroyed guest's share of the heap stays reserved for its successor
        self.xcr0 = 0  # the XSAVE features that the CPU has, as XCR0
        self.compacts = False
        self.trial = None  # vmm/vtx/trial.py: how the CPU behaves in a guest
        self._drives = None
        self.gone = bytearray(PAGE)  # the frame of all destroyed guests: a full heap has no room for one each
        self.reserve = None  # memory that vmm/policies/policy.py frees when a policy has filled the heap
        self.active = False  # whether guests can run here
        if self.caps.ok:
            self._vmxon()
        self.gdb = GdbLine(self)
        cpu.idle_hook(self.idle)

    def _vmxon(self):
        caps = self.caps
        if not caps.feature_control & 1:
            cpu.wrmsr(controls.IA32_FEATURE_CONTROL, caps.feature_control | 5)
        cpu.set_cr(0, cpu.cr(0) | caps.cr0_fixed0)
        cpu.set_cr(4, cpu.cr(4) | caps.cr4_fixed0 | CR4_VMXE)
        region = self.pages.take(PAGE)
        struct.pack_into("<I", uctypes.bytearray_at(region, 4), 0, caps.revision)
        vmx.on(region)
        vmx.mitigate(self.mitigations.bits)
        if self.mitigations.features.IBRS_IBPB:
            cpu.wrmsr(mitigations.IA32_SPEC_CTRL, self.mitigations.spec_ctrl)
        if cpu.cr(4) & CR4_OSXSAVE:
            self.xcr0 = cpu.cpuid(0xD, 0)[0]
            self.compacts = vmx.compacts()
        self.trial = trial.run(self.pages, caps)
        cpu.soft_reset_hook(self.leave)
        self.active = True

    def __repr__(self):
        rows = [repr(self.vms)] if len(self.vms) else ["no guests"]
        rows += ["no guest can run: " + line for line in self.caps.missing]
        rows.append("host memory: %d MiB free, %d MiB in one piece" % (
            self.pages.available >> 20, self.pages.largest >> 20,
        ))  # fmt: skip
        heap, left, _ = cpu.heap()
        rows.append("heap: %d KiB, of which %d KiB lie free in one piece" % (heap >> 10, left >> 10))
        return "\n".join(rows)

    def idle(self, deadline):
        """The port's idle hook: messages, then guests until the prompt or the sleeper is due.

        The port removes a hook that fails, and no guest would run any more: an exception is reported here and the hook
        stays.
        """
        try:
            self.machine_checks.look()
            self.journal.flush()
        except Exception as error:
            self.scheduler.report_error(error)
        try:
            self.scheduler.hook(deadline)
        except Exception as error:
            self.scheduler.report_error(error)

    _unseen = None

    @property
    def unseen(self):
        """Ticks that a guest sees of an exit during which its clock stands still (vmm.vtx.trial.unseen)."""
        if self._unseen is None:
            with self.scheduler.still:
                self._unseen = trial.unseen(self.pages, self.caps)
        return self._unseen

    @property
    def drives(self):
        """The machine's disks (vmm.host.drives.Drives), looked for at the first call."""
        if self._drives is None:
            from vmm.host.drives import Drives

            self._drives = Drives(self.scheduler, self.pages)
        return self._drives

    def leave(self):
        """Whether a soft reset that was asked for at the prompt takes place: where there are guests, it asks."""
        names = list(self.vms)
        if not names or self._agreed(names):
            self._stop_devices()
            return True
        return False

    def _stop_devices(self):
        """The machine's devices write to no memory any more: it is about to be used anew."""
        if self._drives:
            self._drives.close()
        if self._switches:
            self._switches.close()

    def _agreed(self, names):
        more = " and %d more" % (len(names) - _NAMED) if len(names) > _NAMED else ""
        text = "A soft reset destroys the guests %s%s. Ctrl-D once more does it, any other key stays."
        print(text % (", ".join(names[:_NAMED]), more))
        return sys.stdin.buffer.read(1) == _CTRL_D

    @property
    def switches(self):
        """The switches that guests' network interfaces are plugged into, by name (vmm/network/switch.py)."""
        if self._switches is None:
            from vmm.network.switch import Switches

            scheduler = self.scheduler
            self._switches = Switches(scheduler, scheduler.preempt_soon, vmx.bind(hold, scheduler), self.pages)
        return self._switches

    @property
    def has_switches(self):
        """Whether a guest has a network interface."""
        return bool(self._switches and self._switches.by_name)

    # -- machines

    def create(self, config, blobs):
        """Make a VM from a guest's JSON (a dict) and {module name: buffer}; it is not started.

        Raises NoVmx, ValueError for a bad description or one guest too many, pages.OutOfMemory, MemoryError where
        the heap is full.
        """
        return cpu.shield(lambda: self._create(config, blobs))  # Ctrl-C would leave half a guest

    def _create(self, config, blobs):
        if not self.active:
            raise NoVmx("no guest can run: " + "; ".join(self.caps.missing))
        description.check(config)
        name = config["name"]
        if name in self.vms:
            raise ValueError("there is a guest %s already" % name)
        cpus = config.get("cpus") or 1
        if not self._vpids:
            raise ValueError("guest %s: there are %d vCPUs, the most that there can be" % (name, self._most))
        if len(self._vpids) < cpus:
            raise ValueError("guest %s: cpus: %d wanted, %d left" % (name, cpus, len(self._vpids)))
        if config["memory"] > self.pages.available:
            raise pages.OutOfMemory(
                "guest %s: memory: %d KiB wanted, %d KiB free"
                % (name, config["memory"] >> 10, self.pages.available >> 10)
            )
        vpids = self._vpids[-cpus:]
        heap, left, since = cpu.heap()
        if left < heap // _SCARCE and since > heap // _NEW:
            gc.collect()  # small objects then fill holes before they split the largest block
        try:
            self.links.add(name, config.get("links") or [])
        except ValueError as error:
            raise ValueError("guest %s: links%s" % (name, error)) from None
        try:
            uart = self.uarts.choose(config)
            vm = VM(self, config, blobs, uart[1] if uart else None, vpids)
            self._check_heap(vm)
        except BaseException as error:
            self.links.remove(name)
            if isinstance(error, pages.OutOfMemory):
                raise pages.OutOfMemory("guest %s: %s" % (name, error)) from None
            if isinstance(error, MemoryError):
                text = "guest %s: %d guests fill the monitor's heap; the option heap= makes it larger"
                raise MemoryError(text % (name, len(self.vms))) from None
            raise
        del self._vpids[-cpus:]
        self.uarts.give(vm, uart)
        self.vms.add(vm)
        self._peak = max(self._peak, len(self.vms))
        self.scheduler.add(vm)
        self.links.wire(self.vms)
        self.uarts.rewire(self.vms.values())
        return vm

    def _check_heap(self, vm):
        """MemoryError where a new guest would leave too little: in a full heap not even destroy() can run."""
        heap, left, _ = cpu.heap()
        kept = heap // _KEPT
        if left < kept:
            gc.collect()
            if gc.mem_free() < (kept if len(self.vms) >= self._peak else kept // 2):
                vm.release()
                raise MemoryError

    def forget(self, vm):
        """Remove a VM: free its VPID, console and place in the schedule."""
        self.links.remove(vm.name)
        self.vms.remove(vm)
        self.journal.forget(vm.name)
        self.scheduler.remove(vm)
        self._vpids.extend(vm.vpids)
        self.uarts.free(vm)
        self.uarts.rewire(self.vms.values())

    def _settle(self):
        """What handlers have put off."""
        for vm in list(self.vms.values()):
            vm.settle()

    def flush(self, vm):
        """Drop all translations of a VM from the TLB: EPT's and the guest's own."""
        vmx.invept(INVEPT_SINGLE_CONTEXT, vm.ept.eptp)
        for vpid in vm.vpids:
            vmx.invvpid(INVVPID_SINGLE_CONTEXT, vpid, 0)


def _mitigated():
    """Whether the command line leaves mitigations on; a word that is none of its own changes nothing."""
    try:
        return mitigations.wanted(multiboot.cmdline())
    except ValueError as error:
        print(error)
        return True


def _free_memory():
    return [(base, length) for base, length, kind in multiboot.memory() if kind == RAM]


def _taken_memory():
    taken = [multiboot.image(), multiboot.heap()]
    taken += [(hpa, size) for _, hpa, size in multiboot.modules()]
    return taken
