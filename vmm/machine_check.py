"""Machine checks of the host: reported, and the guest whose memory or run they name is stopped.

At the start all banks are enabled. A #MC while a guest runs is an exit: that guest stops. A #MC in the monitor is
survived where the CPU says that the interrupted code can continue (port/mce.c keeps the banks' contents until the next
`look`), and the guest in whose memory it was stops. Every other one is a panic of the monitor. Corrected errors are not
polled. Source: SDM Vol. 3B, "Machine-Check Architecture".
"""

from micropython import const

from vmm.vtx.cpuid_bits import LEAF_1_EDX_MCA, LEAF_1_EDX_MCE
from vmm.vtx.reg import Bits, Reg, register
from vmm.vtx.x86 import IA32_MC0_CTL, IA32_MCG_CAP, IA32_MCG_STATUS, MASK64

_CPUID_MCE_MCA = const(LEAF_1_EDX_MCE | LEAF_1_EDX_MCA)
_IA32_MCG_CTL = const(0x17B)
MC_BANK = const(4)  # MSRs of a bank: IA32_MCi_CTL,
MC_STATUS = const(1)  # and those behind it
MC_ADDR = const(2)
MC_MISC = const(3)
_CTL_P = const(1 << 8)
_JOURNAL = "host"


@register
class McStatus(Reg):
    """IA32_MCi_STATUS."""

    VAL = Bits(63)
    OVER = Bits(62)
    UC = Bits(61)
    EN = Bits(60)
    MISCV = Bits(59)
    ADDRV = Bits(58)
    PCC = Bits(57)
    S = Bits(56)
    AR = Bits(55)
    MSCOD = Bits(31, 16)
    MCACOD = Bits(15, 0)


def describe(record):
    """A line for (bank, status, address, misc)."""
    bank, status, address, misc = record
    text = "machine check: bank %d, %r" % (bank, McStatus(status))
    if McStatus(status).ADDRV:
        text += ", address %#x" % address
    return text + (", misc %#x" % misc if McStatus(status).MISCV else "")


class MachineChecks:
    """banks: how many the CPU has; 0 where it has none, or (an emulated one) lacks the MSRs that CPUID promises."""

    def __init__(self, cpu, journal, machines):
        """cpu: the module. machines: Machines of vmm.monitor."""
        self._cpu = cpu
        self._journal = journal
        self._machines = machines
        self._nmis = cpu.nmis()
        self.banks = 0
        if cpu.cpuid(1)[3] & _CPUID_MCE_MCA == _CPUID_MCE_MCA:
            try:
                self._switch_on()
            except cpu.HostFault:
                self.banks = 0
        cpu.machine_check_banks(self.banks)

    def _switch_on(self):
        rdmsr, wrmsr = self._cpu.rdmsr, self._cpu.wrmsr
        cap = rdmsr(IA32_MCG_CAP)
        if cap & _CTL_P:
            wrmsr(_IA32_MCG_CTL, MASK64)
        for bank in range(cap & 0xFF):
            at = IA32_MC0_CTL + MC_BANK * bank
            wrmsr(at, MASK64)
            wrmsr(at + MC_STATUS, 0)
        wrmsr(IA32_MCG_STATUS, 0)
        self.banks = cap & 0xFF

    def take(self):
        """Return [(bank, status, address, misc), ...] of what the banks hold, and empty them."""
        rdmsr, wrmsr = self._cpu.rdmsr, self._cpu.wrmsr
        found = []
        for bank in range(self.banks):
            at = IA32_MC0_CTL + MC_BANK * bank
            status = McStatus(rdmsr(at + MC_STATUS))
            if status.VAL:
                address = rdmsr(at + MC_ADDR) if status.ADDRV else 0
                misc = rdmsr(at + MC_MISC) if status.MISCV else 0
                found.append((bank, status.raw, address, misc))
                wrmsr(at + MC_STATUS, 0)
        if self.banks:
            wrmsr(IA32_MCG_STATUS, 0)  # or the next one would shut the CPU down
        return found

    def of_guest(self, vcpu):
        """A guest's exit reported a machine check: report it, and stop the guests that the banks name. The caller stops
        the exit's own guest."""
        lines = self._tell(self.take(), vcpu.vm)
        vcpu.vm.report(vcpu, "\n".join(["machine check while the guest ran"] + lines))

    def look(self):
        """Report NMIs and machine checks that the monitor itself took. Allocates nothing where there are none."""
        nmis = self._cpu.nmis()
        if nmis != self._nmis:
            self._journal.say(_JOURNAL, "NMI of the host (%d so far)" % nmis)
            self._nmis = nmis
        records = self._cpu.machine_checks()
        if records is not None:
            lost = records[-1] is None
            for line in self._tell(records[:-1] if lost else records, None):
                self._journal.say(_JOURNAL, line)
            if lost:
                self._journal.say(_JOURNAL, "... and more machine checks")

    def _tell(self, records, running):
        """Return their lines; stop the guests whose memory they name, except `running`."""
        lines = []
        for record in records:
            line = describe(record)
            if McStatus(record[1]).ADDRV:
                for vm in self._owners(record[2]):
                    line += ", in memory of guest %s" % vm.name
                    if vm is not running:
                        vm.fail("machine check in its memory")
            lines.append(line)
        return lines

    def _owners(self, hpa):
        return [
            vm for vm in self._machines.values()
            if any([start <= hpa < start + size for _, size, start in vm.memory.segments])
        ]  # fmt: skip
