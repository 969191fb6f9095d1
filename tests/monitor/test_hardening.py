"""What keeps a guest away from others, the caches and the monitor's own faults."""

import os

import pytest
import vtx
from bench import CODE, DATA, Bench, Guest
from pcanel.monitor import Monitor
from pcanel.paths import ELF
from pcanel.symbols import Symbols
from pcanel.vmm_import import importable

with importable():
    from vmm.vtx.vmcs import GUEST_CR4, HOST_RIP
    from vmm.vtx.x86 import CR4_MCE as MCE

WAYS_OUT = "vmx_exit", "vmx_exit_clear", "vmx_exit_call", "vmx_exit_fill"
FAULT = f"""
    pop rax
    inc qword ptr [{DATA + 0x100:#x}]
    add qword ptr [rsp], 2
    iretq
"""  # past an instruction of two bytes

# CPUID in between, the low halves of four registers are its answers.
REGISTERS = ("rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
KEEPS = "\n".join(
    [f"mov {name}, {0x1111111111111111 * (i + 1):#x}" for i, name in enumerate(REGISTERS)]
    + ["xor eax, eax", "cpuid"]
    + [f"mov [{DATA + 8 * i:#x}], {name}" for i, name in enumerate(REGISTERS)]
    + ["hlt"]
)


@pytest.fixture(scope="module")
def skylake(bench):
    """A CPU that offers nothing, with what is possible there."""
    _need_bochs()
    return bench


@pytest.fixture(scope="module")
def off():
    """The same, without."""
    yield from _boot("corei7_skylake_x", "mitigations=off")


@pytest.fixture(scope="module")
def tigerlake():
    """A CPU that offers nearly all."""
    yield from _boot("tigerlake", "")


def _need_bochs():
    if vtx.engine() != "bochs" or os.environ.get("PCANEL_CPU"):
        pytest.skip("CPU models of Bochs")


def _boot(model, cmdline):
    _need_bochs()
    with Monitor(engine="bochs", cpu=model, memory=128, cmdline=cmdline) as monitor:
        monitor.wait_booted()
        bench = Bench(monitor)
        bench.exec("import cpu")
        yield bench
        assert bench.alive()


def way_out(guest):
    """The symbol that the VMCS names as HOST_RIP."""
    symbols = Symbols(ELF)
    rip = guest.eval(f"vcpu.read({HOST_RIP})")
    return next(name for name in WAYS_OUT if symbols[name] == rip)


def exits(guest, reason):
    return guest.eval(f"vm.exit_counts().get({reason!r}, (0, 0))[0]")


def keeps_its_registers(bench):
    guest = Guest(bench, "registers", KEEPS)
    try:
        guest.halted()
        assert guest.words(len(REGISTERS)) == tuple(0x1111111111111111 * (i + 1) for i in range(len(REGISTERS)))
        return way_out(guest)
    finally:
        guest.destroy()


# -- mitigations


def test_the_way_out_that_is_chosen(skylake):
    assert skylake.eval("mitigations.state")["return stack"] == "on"
    assert skylake.eval("mitigations.bits") == 3
    assert keeps_its_registers(skylake) == "vmx_exit_fill"


def test_mitigations_off(off):
    state = off.eval("mitigations.state")
    assert state["registers"] == state["return stack"] == "off" and "on" not in state.values()
    assert off.eval("mitigations.bits") == 0
    assert keeps_its_registers(off) == "vmx_exit"


def test_a_guest_is_not_offered_what_the_cpu_lacks(skylake):
    guest = Guest(
        skylake,
        "lacks",
        f"""
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov [{DATA:#x}], rdx
    mov ecx, 0x48
    rdmsr
    mov ecx, 0x10a
    rdmsr
    mov ecx, 0x49
    mov eax, 1
    xor edx, edx
    wrmsr
    hlt
""",
        handlers={13: FAULT},
    )
    try:
        guest.halted()
        assert guest.word() & 0xBC000400 == 0 and guest.word(32) == 3
    finally:
        guest.destroy()


def test_fast_strings_are_as_the_host_has_them(skylake):
    """Where they are off, or the host does not say so, Linux does not copy by REP MOVSB."""
    guest = Guest(skylake, "strings", f"mov ecx, 0x1a0; rdmsr; mov [{DATA:#x}], rax; hlt", handlers={13: FAULT})
    try:
        guest.halted()
        skylake.exec("try:\n    on = cpu.rdmsr(0x1a0) & 1\nexcept Exception:\n    on = 0")
        assert guest.word() & 0xFFFFFFFF == skylake.eval("on") | 1 << 11 | 1 << 12
    finally:
        guest.destroy()


def test_a_cpu_that_offers_nearly_all(tigerlake):
    state = tigerlake.eval("mitigations.state")
    assert state.pop("branch history") == "VULNERABLE" and state.pop("L1 data cache") == "not needed"
    assert set(state.values()) == {"on"} and len(state) == 5
    assert tigerlake.eval("cpu.rdmsr(0x48)") == 1  # enhanced IBRS is on
    assert keeps_its_registers(tigerlake) == "vmx_exit_call"
    assert "on          VERW before each entry; not MDS_NO" in tigerlake.exec("print(mitigations)")


OFFERED = f"""
    mov eax, 7
    xor ecx, ecx
    cpuid
    mov [{DATA:#x}], rdx
    mov ecx, 0x10a
    rdmsr
    mov [{DATA + 8:#x}], rax
    mov ecx, 0x48
    rdmsr
    mov [{DATA + 16:#x}], rax
    xor edx, edx
    mov eax, 0x100
    wrmsr               # reserved
    mov eax, VALUE
    wrmsr
    mov r12, 50
again:
    xor eax, eax
    cpuid
    mov ecx, 0x48
    rdmsr
    mov [{DATA + 24:#x}], rax
    xor edx, edx
    mov eax, VALUE
    wrmsr
    mov ecx, 0x49
    mov eax, 1
    wrmsr
    mov ecx, 0x10b
    mov eax, 1
    wrmsr
    dec r12
    jnz again
    mov ecx, 0x49
    mov eax, 2
    wrmsr               # reserved
    rdmsr               # there is nothing to read
    mov ecx, 0x10a
    wrmsr               # nothing to write
    hlt
"""


def test_guests_have_the_controls_for_their_own(tigerlake):
    """Their IA32_SPEC_CTRL, each another, while the monitor's is what it was at every exit."""
    values = 5, 6
    guests = [
        Guest(tigerlake, f"own{value}", OFFERED.replace("VALUE", str(value)), handlers={13: FAULT}) for value in values
    ]
    try:
        for guest in guests:
            guest.exec("seen = set()")
            guest.policy("CPUID", "seen.add(cpu.rdmsr(0x48))\nreturn DEFAULT", "look")
        for guest in guests:
            guest.go()
        for guest, value in zip(guests, values, strict=True):
            guest.until("vm.state == 'halted'", 20000)
            edx, capabilities, first, last = guest.words(4)
            assert edx & 0xBC000400 == 0xBC000400
            assert capabilities == 0x1F and first == 0 and last == value
            assert guest.word(32) == 4  # #GP
            assert guest.eval("vm.msrs.read(vm.vcpu, 0x48)") == value
            # The first read, the two first writes and what is refused; all else is the guest's own.
            assert exits(guest, "RDMSR") <= 4 and exits(guest, "WRMSR") <= 4
        assert tigerlake.eval("seen") == {1}
        assert tigerlake.eval("cpu.rdmsr(0x48)") == 1
        guests[0].exec("vm.reset()\nvm.pause()")
        assert guests[0].eval("vm.msrs.read(vm.vcpu, 0x48)") == 0
    finally:
        for guest in guests:
            guest.destroy()


# -- NMIs, machine checks, caches


NMI_SOURCE = """
import machine
def ioapic(index, value):
    machine.mem32[0xFEC00000] = index
    machine.mem32[0xFEC00010] = value
def nmis_on():
    "The host's 8254 raises an NMI 1,000 times a second: pin 2 of its I/O APIC."
    cpu.outb(0x43, 0x34)
    cpu.outb(0x40, 1193 & 0xFF)
    cpu.outb(0x40, 1193 >> 8)
    ioapic(0x10 + 5, 0)
    ioapic(0x10 + 4, 4 << 8)
def nmis_off():
    ioapic(0x10 + 4, 1 << 16)
"""


def test_nmis_of_the_host(bench, guest):
    """In the monitor and in a guest that never exits by itself: counted, and each lets the next come."""
    counts = guest(f"again: inc qword ptr [{DATA:#x}]\njmp again")
    bench.exec("import cpu\n" + NMI_SOURCE)
    counts.exec(
        "before = cpu.nmis()\nnmis_on()\nstart = time.ticks_ms()\n"
        "while time.ticks_diff(time.ticks_ms(), start) < 50: pass\nnmis_off()\nat_prompt = cpu.nmis() - before"
    )
    assert bench.eval("at_prompt") >= 20
    counts.exec("before = cpu.nmis()\nvm.resume()\nnmis_on()\ntime.sleep_ms(100)\nnmis_off()\nvm.pause()")
    taken, exited = bench.eval("cpu.nmis() - before"), exits(counts, "EXCEPTION_OR_NMI")
    assert exited >= 40 and taken >= exited
    assert counts.word() > 1000 and counts.eval("vm.why") == "by pause()"


def test_a_guest_runs_with_machine_checks_on(guest):
    """CR4.MCE is the host's; the guest sees its own."""
    toggles = guest(f"""
    mov rax, cr4
    mov [{DATA:#x}], rax
    or rax, {MCE}
    mov cr4, rax
    mov rbx, cr4
    mov [{DATA + 8:#x}], rbx
    push rbx
    xor eax, eax
    cpuid
    pop rbx
    and rbx, {~MCE}
    mov cr4, rbx
    mov rbx, cr4
    mov [{DATA + 16:#x}], rbx
    hlt
""")
    toggles.exec(f"cr4s = set()\nGUEST_CR4 = {GUEST_CR4}")
    toggles.policy("CPUID", f"cr4s.add(vcpu.read(GUEST_CR4) & {MCE})\nreturn DEFAULT")
    toggles.halted()
    first, set_, cleared = toggles.words(3)
    assert (first & MCE, set_ & MCE, cleared & MCE) == (0, MCE, 0)
    assert set_ == first | MCE and cleared == first
    assert toggles.eval("cr4s") == {MCE}
    assert toggles.eval(f"vcpu.read(GUEST_CR4) & {MCE}") == MCE
    assert toggles.eval("cpu.cr(4) >> 6 & 1") == 1


def test_wbinvd_beside_a_guest_of_higher_priority(bench, guest):
    """It exits and does nothing there; alone, or among equals, it is the CPU's."""
    flushes = guest(f"again: wbinvd\ninc qword ptr [{DATA:#x}]\nhlt\njmp again")
    bench.exec(
        f"def one_more(vm):\n    at = vm.memory.read_u64({DATA:#x})\n"
        "    before = vm.exit_counts().get('WBINVD', (0, 0))[0]\n"
        f"    vm.vcpu.rip = {CODE + 7:#x}\n    vm.pause()\n    vm.vcpu.scheduled.before = 'running'\n    vm.resume()\n"
        f"    assert wait(vm, lambda: vm.memory.read_u64({DATA:#x}) == at + 1 and vm.state == 'halted')\n"
        "    print(vm.exit_counts().get('WBINVD', (0, 0))[0] - before)"
    )

    def one_more(others=""):
        """Exits in one more turn of its loop, after something else at the prompt."""
        return int(flushes.exec(f"{others}\none_more(vm)"))

    flushes.halted()
    assert exits(flushes, "WBINVD") == 0
    other = guest("hlt")
    assert one_more() == 0
    assert one_more(f"{other.ref}.priority = 10") == 1
    assert one_more("vm.priority = 10") == 0
    assert one_more("vm.priority = 9") == 1
    assert one_more(f"{other.ref}.destroy()") == 0


def test_memory_is_write_back_whatever_the_guest_says(guest):
    """EPT's "ignore PAT" bit, of all that is mapped; the emulator has no memory types to see it by."""
    mapped = guest("hlt")
    pages = "0, 0x1000, 0x200000, vm.memory.size - 4096"
    assert mapped.eval(f"{{vm.ept.walk(gpa)[0] >> 3 & 15 for gpa in ({pages})}}") == {14}
