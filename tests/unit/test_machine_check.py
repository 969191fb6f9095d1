"""Machine checks: what the banks say is told, and stops whom it names."""

import pytest

from vmm.machine_check import MachineChecks, describe

VAL, UC, ADDRV, MISCV = (1 << bit for bit in (63, 61, 58, 59))


class HostFault(Exception):
    pass


class Cpu:
    """The port's module, with four banks, or without the MSRs."""

    HostFault = HostFault

    def __init__(self, banks=4, edx=1 << 7 | 1 << 14):
        self.msrs = {0x179: 1 << 8 | banks, 0x17A: 4, 0x17B: 0} if banks else {}
        self.msrs |= {0x400 + i: 0 for i in range(4 * banks)}
        self.edx = edx
        self.count = 0
        self.kept = None

    def cpuid(self, leaf):
        return 0, 0, 0, self.edx

    def rdmsr(self, index):
        if index not in self.msrs:
            raise HostFault
        return self.msrs[index]

    def wrmsr(self, index, value):
        if index not in self.msrs or index & 3 == 1 and index >= 0x400 and value:
            raise HostFault
        self.msrs[index] = value

    def nmis(self):
        return self.count

    def machine_checks(self):
        kept, self.kept = self.kept, None
        return kept

    def machine_check_banks(self, count):
        self.told = count


class Vcpu:
    def __init__(self, vm, number):
        self.vm = vm
        self.number = number


class Vm:
    def __init__(self, name, hpa):
        self.name = name
        self.memory = self
        self.segments = [(0, 0x1000, hpa), (0x100000, 0x2000, hpa + 0x10000)]
        self.stopped = None
        self.reports = []
        self.vcpus = [Vcpu(self, 0), Vcpu(self, 1)]

    def fail(self, why):
        self.stopped = why

    def report(self, vcpu, text):
        self.reports.append((vcpu.number, text))


@pytest.fixture
def made():
    return make(Cpu())


def make(cpu):
    said = []
    journal = type("Journal", (), {"say": lambda self, name, text: said.append((name, text))})()
    vms = {"a": Vm("a", 0x400000), "b": Vm("b", 0x800000)}
    return MachineChecks(cpu, journal, vms), cpu, vms, said


def test_all_banks_are_switched_on(made):
    checks, cpu, _, _ = made
    assert checks.banks == 4 == cpu.told
    assert cpu.msrs[0x17B] == cpu.msrs[0x400] == cpu.msrs[0x40C] == (1 << 64) - 1
    assert cpu.msrs[0x17A] == 0


@pytest.mark.parametrize("cpu", [Cpu(banks=0), Cpu(edx=1 << 7), Cpu(edx=0)], ids=["no MSRs", "no MCA", "no #MC"])
def test_a_cpu_without(cpu):
    checks, _, _, _ = make(cpu)
    assert checks.banks == 0 == cpu.told and checks.take() == []


def test_a_guests_exit_stops_those_whose_memory_is_named(made):
    checks, cpu, vms, said = made
    cpu.msrs |= {0x405: VAL | UC | ADDRV, 0x406: 0x810800, 0x409: VAL | UC, 0x17A: 5}
    checks.of_guest(vms["a"].vcpus[1])
    assert vms["a"].stopped is None  # by its caller
    assert vms["b"].stopped == "machine check in its memory"
    ((number, text),) = vms["a"].reports
    assert number == 1  # whose exit it was
    assert "bank 1," in text and "address 0x810800, in memory of guest b" in text and "bank 2," in text
    assert cpu.msrs[0x405] == cpu.msrs[0x409] == cpu.msrs[0x17A] == 0 and said == []


def test_what_the_monitor_took_is_told_once(made):
    checks, cpu, vms, said = made
    checks.look()
    assert said == []
    cpu.count = 2
    cpu.kept = [(3, VAL | UC | ADDRV | MISCV, 0x400FFF, 0x8C), (0, VAL | UC, 0, 0), None]
    checks.look()
    checks.look()
    assert [text.split(":")[0] for _, text in said] == [
        "NMI of the host (2 so far)", "machine check", "machine check", "... and more machine checks",
    ]  # fmt: skip
    assert said[1][1].endswith("address 0x400fff, misc 0x8c, in memory of guest a")
    assert vms["a"].stopped and not vms["b"].stopped


def test_a_line():
    assert describe((2, VAL | 0x150, 5, 5)) == "machine check: bank 2, McStatus(0x8000000000000150: VAL MCACOD=0x150)"
