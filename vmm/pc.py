"""The PC that a guest sees: which chip answers where, and how their lines are wired.

Ports, gpas and interrupt lines are those of every PC since 1996 (82371SB and 82093AA data
sheets); docs/memory-map.md lists them.
"""

import time

import micropython
import uctypes
from micropython import const
from vmx import bind

from vmm import bda, screen, verdict
from vmm.acpi import mp, tables
from vmm.acpi.dsdt_aml import AML
from vmm.bus import Overlap
from vmm.console import RING, Console
from vmm.description import FIRMWARE
from vmm.devices import hpet, lapic_registers
from vmm.devices import pc_ports as at
from vmm.devices.acpi_pm import AcpiPm
from vmm.devices.gsi import Gsi
from vmm.devices.i8042 import I8042
from vmm.devices.i8254 import I8254
from vmm.devices.i8259 import I8259
from vmm.devices.ioapic import IoApic
from vmm.devices.lapic_registers import IO_EXTINT
from vmm.devices.lapic_vectors import receive
from vmm.devices.later import Later
from vmm.devices.mc146818 import Mc146818
from vmm.devices.pci_header import CONFIG_ADDRESS
from vmm.devices.port92 import Port92
from vmm.devices.reset_cf9 import ResetCf9
from vmm.devices.uart16550 import Uart16550
from vmm.devices.vga import Vga
from vmm.handlers.apic_msrs import ApicMsrs
from vmm.vtx.frame import PARKED
from vmm.vtx.x86 import APIC_BASE, IOAPIC_BASE, PAGE

COM_PORTS = (at.COM1, at.COM2, at.COM3, at.COM4)
_COM_LINES = (at.COM1_IRQ, at.COM2_IRQ, at.COM1_IRQ, at.COM2_IRQ)
_SCI = const(9)
# Attributes of Pc in the order of reset, save and load: chips that drive others, then those that add() has added, then
# interrupt controllers.
_CHIPS = ("hpet", "vga", "pit", "rtc", "pm", "keyboard", "port92", "cf9")
_CONTROLLERS = ("pic", "ioapic")


class Pc:
    """All devices of one guest. `console` is its COM1's other end."""

    firmware = None  # vmm.firmware.Firmware, where the guest has one of its own
    expansion = None  # what the guest's file plugs in

    def __init__(self, vm, host_uart):
        self.vm = vm
        clock = vm.clock
        self.lapic = first = vm.vcpus[0].lapic
        self._cpus = len(vm.vcpus)
        alone = self._cpus == 1
        self.local_apics = first if alone else LocalApics(vm)  # as a device in memory
        carry = bind(receive, vm.vcpus[0].apic_page, first) if alone else vm.apic_bus.message
        self.ioapic = IoApic(carry, self._cpus)  # APIC IDs from 0; the I/O APIC's is the next
        self.gsi = Gsi(self.ioapic, self.lapic)
        self.pic = self.gsi.pic = I8259(self.gsi.quick_intr())
        self.pit = I8254(self.gsi.line(0), clock, edge=self.gsi.edge(0))
        self.gsi.when_unmasked(self.pit.unmasked)
        self.rtc = Mc146818(self.gsi.line(8), clock, int(time.time()))
        self._cut = None
        self.hpet = None  # None until the guest accesses it
        self.vga = Vga(clock)
        self.mirror = screen.Mirror(vm, self.vga) if vm.config.get("screen") == "console" else None
        self.pm = AcpiPm(self.gsi.line(_SCI), clock, self._power_off)
        display = vm.config.get("screen") == "graphics"
        self.keyboard = I8042(self.gsi.line(1), self.gsi.line(12), self._reset, self._a20, mouse=display)
        self.typist = None  # vmm.keyboard.Typist, once its first key is typed
        self.port92 = Port92(self._reset, self._a20)
        self.cf9 = ResetCf9(self._reset)
        self.console = Console(host_uart, vm.more_typed, uctypes.bytearray_at(vm.take(RING), RING))
        self.com1 = Uart16550(self.console.tx, self.gsi.line(_COM_LINES[0]), drained=self.console.drained)
        self.console.uart = self.com1
        self.coms = [self.com1, None, None, None]
        self._wire(vm.port_bus, vm.mmio_bus)
        self._optional = ()  # names of what add() has added
        self._present = ("KBD", "MOU", "HPET") if display else ("KBD", "HPET")  # in ACPI, beside the COM ports
        self._add_optional(vm, vm.config, carry)
        self.apic_msrs = ApicMsrs(vm.msrs, vm.cpuid.width, self._apic_base_changed)

    def _add_optional(self, vm, config, carry):
        """Make what the guest's file asks for, each in a branch that imports it. carry: takes APIC messages."""
        if config["protocol"] in FIRMWARE:
            from vmm.firmware import Firmware

            self.add("firmware", Firmware(vm))
        if wanted(config):
            from vmm.expansion import Expansion

            self.add("expansion", Expansion(vm, self.vga, self.gsi.line, carry))

    def add(self, name, chip, acpi=None):
        """Make a chip an attribute, which is reset, saved and loaded with the others.

        acpi: the name of its Device in vmm/acpi/dsdt.asl, which is present then.
        """
        setattr(self, name, chip)
        self._optional += (name,)
        if acpi:
            self._present += (acpi,)

    def _wire(self, ports, mmio):
        ports.claim(at.PIC_MASTER, 2, self.pic)
        ports.claim(at.PIC_SLAVE, 2, self.pic, 2)
        ports.claim(at.ELCR, 2, self.pic, 4)
        ports.claim(at.PIT, 4, self.pit)
        ports.claim(at.SYSTEM_CONTROL_B, 1, self.pit, 4)
        ports.claim(at.KEYBOARD, 1, self.keyboard)
        ports.claim(at.KEYBOARD_COMMAND, 1, self.keyboard, 4)
        ports.claim(at.RTC, 2, self.rtc)
        ports.claim(at.SYSTEM_CONTROL_A, 1, self.port92)
        ports.claim(at.VGA, 16, self.vga)
        ports.claim(at.VGA_CRTC, 2, self.vga, 0x14)
        ports.claim(at.VGA_STATUS, 1, self.vga, 0x1A)
        ports.claim(at.RESET_CONTROL, 1, self.cf9)
        ports.reserve_dword(CONFIG_ADDRESS)  # of PCI: chipsets do not pass it to the register at CF9h
        ports.claim(COM_PORTS[0], 8, self.com1)
        ports.claim(tables.PM_BASE, 16, self.pm, widest=4)
        mmio.claim(APIC_BASE, PAGE, self.local_apics)
        self._lapic_at = APIC_BASE
        mmio.claim(IOAPIC_BASE, PAGE, self.ioapic)
        mmio.claim(tables.HPET, hpet.SIZE, Later(self._make_hpet))

    def __repr__(self):
        from vmm.debug import chips

        return chips.pc(self)

    def com(self, n):
        """The UART of COM1 to COM4, n from 0; those beyond COM1 are made for the first link that names them."""
        if self.coms[n] is None:
            self.coms[n] = Uart16550(_gone, self.gsi.line(_COM_LINES[n]))
            self.vm.port_bus.claim(COM_PORTS[n], 8, self.coms[n])
        return self.coms[n]

    def typing(self):
        """The Typist of its keyboard."""
        if self.typist is None:
            from vmm.keyboard import Typist

            self.typist = Typist(self.vm.clock, self.keyboard)
        return self.typist

    def connect(self, vcpu):
        """Interrupts reach a vCPU through its Events, or through the words of its frame."""
        vcpu.lapic_at = APIC_BASE
        lapic, events = vcpu.lapic, vcpu.events
        events.extint = lapic.extint
        events.acknowledge = bind(_acknowledge, vcpu.apic_page, self.pic.quick_ack)
        lapic.eoi_broadcast = self.ioapic.eoi
        lapic.wire(vcpu.frame_hpa, vcpu.apicv is not None)
        events.highest = lapic.highest
        events.accept = lapic.accept

    def chips(self):
        """Yield (name, chip), those that drive others' inputs first."""
        for name in _CHIPS:
            yield name, getattr(self, name)
        for n, uart in enumerate(self.coms, 1):
            yield "com%d" % n, uart
        for name in self._optional + _CONTROLLERS:
            yield name, getattr(self, name)
        for vcpu in self.vm.vcpus:
            yield "lapic%d" % vcpu.number, vcpu.lapic

    def save(self):
        """The state of all devices as plain data, {name: state}; None for one that has not been made. RuntimeError in
        the middle of an exit of the guest, or of a driver's work for it."""
        self.vm.check_whole("saved")
        with self.vm.monitor.scheduler.still:
            return {name: chip and chip.save() for name, chip in self.chips()}

    def load(self, states):
        """Set what save() returned, also that of another guest with the same description. ValueError, with nothing
        changed, where devices are missing; RuntimeError as save()."""
        self.vm.check_whole("loaded")
        if states.get("hpet") and not self.hpet:
            self._make_hpet()
        chips = [(name, chip) for name, chip in self.chips() if chip]
        for name, _ in chips:
            if states.get(name) is None and name != "hpet":
                raise ValueError("the saved state has no %s" % name)
        if self.expansion:
            self.expansion.check(states["expansion"])
        with self.vm.monitor.scheduler.still:
            self.vm.mmio_bus.together(bind(_load, chips, states))
            self._place_lapic()
            for vcpu in self.vm.vcpus:
                vcpu.scheduled.put(PARKED, 0)  # what a timer raises may not be pending any more
            if self.expansion:
                self.expansion.resume()

    def reset(self):
        """The reset line: every chip."""
        for _, chip in self.chips():
            if chip:
                chip.reset()
        if self.mirror:
            self.mirror.reset()
        if self.typist:
            self.typist.reset()
        for vcpu in self.vm.vcpus:
            vcpu.lapic_at = APIC_BASE
        self._place_lapic()
        self._virtual_wire()

    def _virtual_wire(self):
        """The local APIC as firmware leaves it: LINT0 passes the 8259s on, LINT1 is NMI.

        Source: MP specification 1.4, 3.6.2.2.
        """
        lapic = self.lapic
        lapic.write(lapic_registers.SVR, 4, lapic_registers.SVR_ENABLED | 0xF)
        lapic.write(lapic_registers.LVT_LINT0, 4, lapic_registers.EXTINT << 8)
        lapic.write(lapic_registers.LVT_LINT1, 4, lapic_registers.NMI << 8)

    def tables(self):
        """Write what firmware leaves: BIOS data area, a blank screen, ACPI's and the MP table. Or have the guest's own
        firmware do that.

        Return the gpa of the RSDP, 0 where there is no room, or none yet.
        """
        memory = self.vm.memory
        com_ports = [COM_PORTS[n] if self.coms[n] else 0 for n in range(4)]
        acpi = {
            "cpus": self._cpus,
            "present": tuple(["COM%d" % n for n, uart in enumerate(self.coms, 1) if uart]) + self._present,
            "screen": (self.vm.config.get("screen") or "off") != "off",
            "hpet_id": hpet.ID,
            "pci": self.expansion.acpi() if self.expansion else None,
        }
        if self.firmware:
            self.firmware.start(self.expansion.order(), AML, **acpi)
            return 0
        bda.install(memory, com_ports)
        if memory.size < 0x100000:
            return 0
        screen.blank(memory)
        signature, _, _, features = self.vm.cpuid.leaf(1, 0)
        mp.install(memory, self._cpus, signature, features, APIC_BASE, IOAPIC_BASE, _SCI)
        if self.expansion:
            self.expansion.assign()
        return tables.install(memory, AML, **acpi)

    def _make_hpet(self):
        """Replace the placeholder by the HPET. The page is its own, so its accesses have a key of their own."""
        bus = self.vm.mmio_bus
        self.hpet = hpet.Hpet(self.vm.clock, self.gsi.line, self._replace_legacy)
        bus.replace(bus.find(tables.HPET)[1], tables.HPET, PAGE, self.hpet)
        return self.hpet

    def _replace_legacy(self, on):
        """The HPET takes lines 0 and 8 from the 8254 and the MC146818, or gives them back."""
        if on:
            self._cut = self.pit.irq, self.rtc.irq, self.pit.timer.callback
            for line in self._cut[:2]:
                line(0)
            self.pit.irq = self.rtc.irq = _gone
            self.pit.timer.callback = self.pit._due  # the fast path has the old line bound
        else:
            self.pit.irq, self.rtc.irq, self.pit.timer.callback = self._cut
            self.pit.irq(self.pit.level)
            self.rtc.irq(self.rtc.level)

    def _power_off(self):
        self.vm.ports.outcome = verdict.ADVANCE | verdict.POWER_OFF

    def _a20(self, on):
        """Address line 20 is never masked; an attempt is counted."""
        if not on:
            self.vm.count_refused("A20 gate off")

    def _reset(self, hard=True):
        self.vm.ports.outcome = verdict.ADVANCE | verdict.RESET

    def _apic_base_changed(self, vcpu, base):
        vcpu.lapic_at = base
        self._place_lapic()
        if vcpu.apicv:
            vcpu.apicv.mode(base)

    def _place_lapic(self):
        """The registers are in memory in xAPIC mode only: at the gpa of IA32_APIC_BASE, in front of what RAM is there.

        Where vCPUs have them at several places, they are at the first one's.
        """
        vm = self.vm
        wanted = None
        for vcpu in vm.vcpus:
            if wanted is None and vcpu.lapic.enabled and not vcpu.lapic.x2apic:
                wanted = vcpu.lapic_at
        if wanted == self._lapic_at:
            return
        if self._lapic_at is not None:
            vm.mmio_bus.release(self.local_apics)
            vm.uncover()
            self._lapic_at = None
        if wanted is not None:
            try:
                vm.mmio_bus.claim(wanted, PAGE, self.local_apics)
                vm.cover(wanted)
                self._lapic_at = wanted
            except Overlap:
                vm.count_refused("local APIC at the I/O APIC's address")


class LocalApics:
    """The page of the local APICs on the bus: each vCPU accesses its own there. For a guest of several."""

    def __init__(self, vm):
        self._vm = vm
        self.each = [vcpu.lapic for vcpu in vm.vcpus]

    def read(self, offset, size):
        return self._vm.current.lapic.read(offset, size)

    def write(self, offset, size, value):
        self._vm.current.lapic.write(offset, size, value)


def _load(chips, states):
    for name, chip in chips:
        if states.get(name):
            chip.load(states[name])
        else:
            chip.reset()


def wanted(config):
    """Whether a guest's description plugs something into its PC (vmm/expansion.py)."""
    keys = ("pci", "rng", "hvc", "disks", "cds", "devices", "nets")
    graphics = config.get("screen") == "graphics"
    return config["protocol"] in FIRMWARE or graphics or any([config.get(key) for key in keys])


def _gone(_):
    """Far end of a UART without one: characters and line levels are lost."""
    return 1


@micropython.viper
def _acknowledge(page: int, ack) -> int:
    """Acknowledge the 8259s' interrupt; its vector. page: address of the local APIC's page."""
    r = ptr32(page)
    r[IO_EXTINT // 4] = 0
    return int(ack())
