"""The monitor: one object that owns the CPU's VMX operation, host memory and the machines.

    monitor = Monitor()          # VMX root operation, where the CPU has it
    vm = monitor.create(config, blobs)
    vm.start()

`main` is what the image runs at boot: guests and policies come as boot modules
(docs/boot-modules.md).
"""

import gc
import json
import struct
import sys
from collections import OrderedDict

import cpu
import multiboot
import uctypes
import vmx
from micropython import const

from vmm import description, journal, machine_check
from vmm.memory import pages
from vmm.scheduling import sched
from vmm.ties import link, shared
from vmm.vm import VM
from vmm.vtx import caps as caps_module
from vmm.vtx import controls, mitigations, trial
from vmm.vtx.vmcs_bits import INVEPT_SINGLE_CONTEXT, INVVPID_SINGLE_CONTEXT
from vmm.vtx.x86 import CR4_OSXSAVE, CR4_VMXE, PAGE

_RAM = const(1)
_GUEST_HEAP = const(64 << 10)  # bytes of heap that every guest takes at least
_SCARCE = const(4)  # where less than this part of the heap is left in one piece, holes are filled first
_NEW = const(8)  # if so much of it has been allocated since they were looked for
_KEPT = const(8)  # what part of the heap new guests leave to the prompt and to destroy(): an eighth
_NAMED = const(4)  # guests, where a line names some
_CTRL_D = b"\x04"
_CONSOLES = {"com2": 1, "com3": 2}


class NoVmx(RuntimeError):
    """Guests cannot run here; the text names the missing capability."""


class Machines:
    """The VMs by name: vms['linux'], iteration over names, a table when printed."""

    def __init__(self):
        self._by_name = {}

    def __getitem__(self, name):
        return self._by_name[name]

    def __contains__(self, name):
        return name in self._by_name

    def __iter__(self):
        return iter(self._by_name)

    def __len__(self):
        return len(self._by_name)

    def values(self):
        return self._by_name.values()

    def add(self, vm):
        self._by_name[vm.name] = vm

    def remove(self, vm):
        del self._by_name[vm.name]

    def __repr__(self):
        rows = ["%-14s %-8s %-26s %8s %s" % ("NAME", "STATE", "WHY", "MEMORY", "RIP")]
        for vm in self.values():
            rows.append(
                "%-14s %-8s %-26s %4d MiB %#018x" % (vm.name, vm.state, vm.why, vm.memory.size >> 20, vm.vcpu.rip)
            )
        return "\n".join(rows)


class Monitor:
    """caps: what the CPU offers. mitigations: what is done against its flaws. pages: host memory. vms: the machines.
    scheduler, machine_checks."""

    def __init__(self):
        self.caps = caps_module.Caps(cpu.cpuid, cpu.rdmsr)
        self.mitigations = mitigations.Mitigations(cpu.cpuid, cpu.rdmsr, _mitigated())
        self.vms = Machines()
        self.pages = pages.Pages(_free_memory(), cpu.zero, cpu.hold)
        for start, size in _taken_memory():
            self.pages.reserve(start, size)
        self.journal = journal.Journal(cpu.rdtsc, cpu.tsc_hz, cpu.reading)
        self.machine_checks = machine_check.MachineChecks(cpu, self.journal, self.vms)
        self._most = cpu.heap()[0] // _GUEST_HEAP
        self.scheduler = sched.Scheduler(cpu.tsc_hz, self._most)
        self.scheduler.say = self.journal.say
        self.links = link.Links(self.scheduler)
        self.windows = shared.Windows(self.pages, self.scheduler)
        self._vpids = list(range(self._most, 0, -1))  # of 65535, which no heap reaches
        self._uarts = [1, 2]
        self._peak = 0  # guests at once so far: the place of one that goes is another's, though the prompt took some
        self.xcr0 = 0
        self.compacts = False
        self.trial = None  # vmm/vtx/trial.py: what the CPU does in a guest
        self.gone = bytearray(PAGE)  # frame of all that are destroyed: in a full heap there is nothing for each
        self.reserve = None  # memory that vmm/policies/policy.py gives up when a policy has taken all the rest
        self.active = False
        if self.caps.ok:
            self._vmxon()
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

    def idle(self, deadline):
        """The port's idle hook: news, then guests until the prompt or the sleeper is wanted.

        The port removes a hook that fails, and guests run no more: whatever fails here is said, and they go on.
        """
        try:
            self.machine_checks.look()
            self.journal.flush()
        except cpu.Timeout:  # of the line that waits
            raise
        except Exception as error:
            self.scheduler.astray(error)
        try:
            self.scheduler.hook(deadline)
        except cpu.Timeout:
            raise
        except Exception as error:
            self.scheduler.astray(error)

    def leave(self):
        """Whether a soft reset that was asked for at the prompt takes place: where there are guests, it asks."""
        names = list(self.vms)
        if not names:
            return True
        more = " and %d more" % (len(names) - _NAMED) if len(names) > _NAMED else ""
        text = "A soft reset destroys the guests %s%s. Ctrl-D once more does it, any other key stays."
        print(text % (", ".join(names[:_NAMED]), more))
        return sys.stdin.buffer.read(1) == _CTRL_D

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
        if not self._vpids:
            raise ValueError("guest %s: there are %d guests, the most that there can be" % (name, self._most))
        if config["memory"] > self.pages.available:
            raise pages.OutOfMemory(
                "guest %s: memory: %d KiB wanted, %d KiB free"
                % (name, config["memory"] >> 10, self.pages.available >> 10)
            )
        vpid = self._vpids[-1]
        heap, left, since = cpu.heap()
        if left < heap // _SCARCE and since > heap // _NEW:
            gc.collect()  # holes are filled before what is left in one piece
        try:
            self.links.add(name, config.get("links") or [])
        except ValueError as error:
            raise ValueError("guest %s: links%s" % (name, error)) from None
        try:
            uart = self._uart(config)
            vm = VM(self, config, blobs, uart[1] if uart else None, vpid)
            self._check_heap(vm)
        except BaseException as error:
            self.links.remove(name)
            if isinstance(error, pages.OutOfMemory):
                raise pages.OutOfMemory("guest %s: %s" % (name, error)) from None
            if isinstance(error, MemoryError):
                text = "guest %s: %d guests fill the monitor's heap; the option heap= makes it larger"
                raise MemoryError(text % (name, len(self.vms))) from None
            raise
        vm.vpid = self._vpids.pop()
        self._give_uart(vm, uart)
        self.vms.add(vm)
        self._peak = max(self._peak, len(self.vms))
        self.scheduler.add(vm, vm.vcpu.pages_used[1])
        self.links.wire(self.vms)
        self._see_to_consoles()
        return vm

    def _check_heap(self, vm):
        """MemoryError where a new guest leaves too little: in a heap that is full to the last nobody could clean up."""
        heap, left, _ = cpu.heap()
        kept = heap // _KEPT
        if left < kept:
            gc.collect()
            if gc.mem_free() < (kept if len(self.vms) >= self._peak else kept // 2):
                vm.release()
                raise MemoryError

    def _uart(self, config):
        """Return (number, host UART) for a console, or None: a linked COM1 is none."""
        import machine

        name, wanted = config["name"], config.get("console")
        cable = self.links.at(name, 0)
        if cable and wanted in _CONSOLES:
            raise ValueError("guest %s: console: COM1 is linked to %s and no console" % (name, cable.far.place()))
        if wanted == "none" or cable or not self._uarts:
            return None
        number = self._uarts[0]
        if wanted:
            number = _CONSOLES[wanted]
            if number not in self._uarts:
                raise ValueError("guest %s: console: %s has a guest already" % (name, wanted))
        return number, machine.UART(number)

    def _see_to_consoles(self):
        """A COM1 that has got a cable gives up its host UART; one that has lost it is a console again. What leads
        outside then is heard."""
        for vm in self.vms.values():
            console = vm.console
            linked = self.links.at(vm.name, 0) is not None
            if linked and not console.linked:
                console.linked = True
                console.host = None
                self._free_uart(vm)
            elif console.linked and not linked:
                console.plug(vm.clock)
                try:
                    self._give_uart(vm, self._uart(vm.config))
                except ValueError:
                    pass  # another guest has it by now: the prompt is left
        self.scheduler.watch_consoles([vm for vm in self.vms.values() if vm.uart is not None])

    def _give_uart(self, vm, uart):
        """uart: as _uart() returns it."""
        vm.uart, vm.console.host = uart or (None, None)
        if uart:
            self._uarts.remove(vm.uart)

    def _free_uart(self, vm):
        if vm.uart is not None:
            self._uarts.append(vm.uart)
            self._uarts.sort()
            vm.uart = None

    def forget(self, vm):
        """A VM goes away: its VPID, console and place in the schedule are free."""
        self.links.remove(vm.name)
        self.vms.remove(vm)
        self.journal.forget(vm.name)
        self.scheduler.remove(vm)
        self._vpids.append(vm.vpid)
        self._free_uart(vm)
        self._see_to_consoles()

    def flush(self, vm):
        """Drop all translations of a VM from the TLB: EPT's and the guest's own."""
        vmx.invept(INVEPT_SINGLE_CONTEXT, vm.ept.eptp)
        vmx.invvpid(INVVPID_SINGLE_CONTEXT, vm.vpid, 0)

    # -- boot

    def load_guests(self):
        """Create the guests that came as boot modules; a bad one gets one line, the others go on.

        Those that name their console come first, so that nobody else has it by then; among them those
        that name links, so that the guests at the far ends are made with the UARTs.
        """
        modules = boot_modules()
        configs = []
        for name in modules:
            if name.startswith("guest:"):
                try:
                    config = json.loads(str(modules[name], "utf-8"))
                    description.check(config)
                    configs.append(config)
                except Exception as error:  # whatever stands there: the others go on
                    self._say_of(name[6:], error)
        for wanted in ((True, True), (True, False), (False, True), (False, False)):
            for config in configs:
                if (bool(config.get("console")), bool(config.get("links"))) == wanted:
                    self._create_or_say(config, modules)
        return modules

    def _create_or_say(self, config, modules):
        try:
            self.create(config, modules)
        except Exception as error:
            self._say_of(config["name"], error)

    @staticmethod
    def _say_of(name, error):
        """A line about a guest that there will not be."""
        text = str(error)
        print(text if text.startswith("guest ") else "guest %s: %s: %s" % (name, type(error).__name__, text))

    def start_guests(self):
        """Start those that were created and want it."""
        for vm in list(self.vms.values()):
            if vm.config.get("autostart", True):
                try:
                    vm.start()
                except Exception as error:
                    vm.why = str(error)
                    print("guest %s does not start: %s: %s" % (vm.name, type(error).__name__, error))


def boot_modules():
    """Return {name: memoryview} of the Multiboot modules, in order."""
    found = OrderedDict()
    for string, hpa, size in multiboot.modules():
        found[string.split(" ", 1)[0]] = memoryview(uctypes.bytearray_at(hpa, size))
    return found


def _mitigated():
    """Whether the command line leaves mitigations on; a word that is none of its own changes nothing."""
    try:
        return mitigations.wanted(multiboot.cmdline())
    except ValueError as error:
        print(error)
        return True


def _free_memory():
    return [(base, length) for base, length, kind in multiboot.memory() if kind == _RAM]


def _taken_memory():
    taken = [multiboot.image(), multiboot.heap()]
    taken += [(hpa, size) for _, hpa, size in multiboot.modules()]
    return taken


def run_policies(modules, namespace):
    """Execute the policy files among the boot modules; errors are printed, the rest goes on."""
    for name in modules:
        if name.startswith("policy:"):
            try:
                exec(compile(str(modules[name], "utf-8"), name[7:], "exec"), namespace)
            except KeyboardInterrupt:
                print("policy file %s: interrupted (Ctrl-C); the start goes on" % name[7:])
            except BaseException as error:
                print("policy file %s:" % name[7:])
                sys.print_exception(error)
