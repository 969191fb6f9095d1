"""IA32_APIC_BASE: the feature bit that follows it, the page that moves with it, and the I/O APIC's ID."""

import pytest
from bench import DATA
from pcanel.vmm_import import importable

with importable():
    from vmm.acpi import tables
    from vmm.vtx.cpuid_bits import LEAF_1_EDX_APIC as APIC_BIT
    from vmm.vtx.x86 import APIC_BASE as BASE
    from vmm.vtx.x86 import IOAPIC_BASE

ENABLED = 0x900  # BSP, EN
_READ = f"mov ecx, 0x1b\nrdmsr\nmov [{DATA:#x} + {{0}}], eax\nmov [{DATA:#x} + {{0}} + 4], edx\n"
_WRITE = "mov ecx, 0x1b\nmov eax, {0:#x}\nmov edx, {1:#x}\nwrmsr\n"


def read(index):
    return _READ.format(8 * index)


def write(value):
    return _WRITE.format(value & 0xFFFFFFFF, value >> 32)


def feature(index):
    return f"mov eax, 1\ncpuid\nmov [{DATA:#x} + {8 * index}], rdx\n"


def test_the_feature_bit_follows_the_enable_bit(guest):
    made = guest(feature(0) + write(BASE | 0x100) + feature(1) + read(2) + write(BASE | ENABLED) + feature(3) + "hlt")
    made.halted()
    on, off, base, again = made.words(4)
    assert (on & APIC_BIT, off & APIC_BIT, again & APIC_BIT) == (APIC_BIT, 0, APIC_BIT)
    assert base == BASE | 0x100
    assert on ^ off == APIC_BIT


def test_a_disabled_apic_is_not_in_memory(guest):
    made = guest(f"{write(BASE | 0x100)}mov esi, {BASE:#x}\nmov eax, [rsi + 0x30]\nmov [{DATA:#x}], rax\nhlt")
    made.halted()
    assert made.word() == 0xFFFFFFFF


@pytest.mark.parametrize("base", [0x300000, 0xFED50000, 0x40000000])
def test_the_page_moves(guest, base):
    """Over RAM, and where nothing is: registers, a self-IPI and its EOI; then RAM is what it was."""
    made = guest(
        f"""
        mov esi, {base:#x}
        mov edi, {BASE:#x}
        mov r8d, [rdi + 0x30]
        mov dword ptr [rsi + 0x30], 0x5a5a5a5a
        {write(base | ENABLED)}
        mov eax, [rsi + 0x30]
        sub rax, r8
        mov [{DATA:#x}], rax
        mov eax, [rdi + 0x30]
        mov [{DATA + 8:#x}], rax
        mov dword ptr [rsi + 0xf0], 0x1ff
        mov byte ptr [rsi + 0x80], 0x20
        or dword ptr [rsi + 0x80], 3
        mov eax, [rsi + 0x80]
        mov [{DATA + 16:#x}], rax
        sti
        mov dword ptr [rsi + 0x300], 0x40040
        nop
        cli
        mov eax, [rsi + 0x110]
        mov [{DATA + 32:#x}], rax
        {read(5)}
        {write(BASE | ENABLED)}
        mov eax, [rsi + 0x30]
        mov [{DATA + 48:#x}], rax
        hlt
        """,
        handlers={0x40: f"inc qword ptr [{DATA + 24:#x}]\nmov dword ptr [rsi + 0xb0], 0\niretq"},
    )
    made.halted()
    there, left, tpr, interrupts, in_service, msr, after = made.words(7)
    assert there == 0 and left == 0xFFFFFFFF
    assert tpr == 3  # a byte is no register's width and is dropped
    assert (interrupts, in_service) == (1, 0)
    assert msr == base | ENABLED
    assert after == (0x5A5A5A5A if base < 4 << 20 else 0xFFFFFFFF)


def test_a_reset_puts_the_page_back(guest):
    base = 0x300000
    made = guest(write(base | ENABLED) + "hlt")
    made.halted()
    assert made.eval(f"vm.memory.has({base:#x})") is False
    made.exec("vm.reset()\nvm.pause()")
    assert made.eval(f"vm.memory.has({base:#x})") is True
    assert made.eval(f"vm.mmio_bus.find({BASE:#x}) is not None and vm.mmio_bus.find({base:#x}) is None")
    made.halted()


def test_bits_beyond_the_physical_address_are_refused(guest):
    made = guest(
        "mov r15, 0\nmov eax, 0x80000008\ncpuid\nmov cl, al\nmov edx, 1\nsub cl, 32\nshl edx, cl\n"
        f"mov ecx, 0x1b\nmov eax, {BASE | ENABLED:#x}\nwrmsr\n{write(BASE | ENABLED | 1)}"
        f"{write(BASE | ENABLED | 0x200)}hlt",
        handlers={13: "inc r15\nadd qword ptr [rsp + 8], 2\nadd rsp, 8\niretq"},
    )
    made.halted()
    assert made.eval("vcpu.r15") == 3
    assert made.eval("vm.msrs.read(vm.vcpu, 0x1b)") == BASE | ENABLED


def test_the_io_apic_has_the_id_that_the_madt_gives_it(guest):
    made = guest(
        f"mov esi, {IOAPIC_BASE:#x}\nmov dword ptr [rsi], 0\nmov eax, [rsi + 0x10]\nmov [{DATA:#x}], rax\n"
        f"mov dword ptr [rsi], 2\nmov eax, [rsi + 0x10]\nmov [{DATA + 8:#x}], rax\nhlt"
    )
    made.halted()
    entry = bytes(tables.madt(1))[44 + 8 :]
    assert entry[:2] == b"\x01\x0c"
    assert made.words(2) == (entry[2] << 24, entry[2] << 24)
