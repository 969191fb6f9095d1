"""Exits in the middle of an event's delivery, NMIs around IRET, and the end of an interrupt that is emulated."""

import pytest
from bench import CODE, DATA

PAGE = 0x300000


@pytest.mark.parametrize("stack", [0xFEC00800, 0xFEE00800, 0xD0000800])
def test_a_stack_in_a_device_stops_the_guest(bench, guest, stack):
    """The instruction at RIP has nothing to do with the access and is not executed."""
    source = f"mov rsi, 0xfee00000\nmov rsp, {stack:#x}\nud2\nmov qword ptr [{DATA:#x}], 1\nhlt"
    made = guest(source, handlers={6: "hlt"})
    text = made.until("vm.state == 'stopped'")
    assert "vector 6 was being delivered when the CPU touched gpa" in text
    assert "rip 0000000000" in text  # the registers
    assert made.word() == 0
    assert made.eval("bytes(vcpu.peek(vcpu.rip, 2))") == b"\x0f\x0b"
    assert bench.alive()


def test_an_iret_that_is_retried_blocks_nmis_till_its_end(guest):
    """Its stack is in a watched page; an NMI that comes meanwhile is taken on the unwound stack, not nested."""
    handler = f"""
        inc qword ptr [{DATA:#x}]
        mov rax, [{DATA:#x}]
        mov [rax * 8 + {DATA:#x}], rsp
        iretq
    """
    made = guest(f"mov rsp, {PAGE + 0x800:#x}\nsti\nagain: jmp again", handlers={2: handler}, data={PAGE: bytes(8)})
    made.exec("n = [0]\nfrom vmm.vtx.vmcs import GUEST_INTERRUPTIBILITY_STATE")
    made.go()
    made.bench.run(5)
    made.policy(
        f"MEMORY, gpa={PAGE}, access='r'",
        "if vcpu.peek(vcpu.rip, 2) == b'\\x48\\xcf':\n    n[0] += 1\n    if n[0] == 1: vm.nmi()",
    )
    made.exec("vm.nmi()")
    made.until(f"vm.memory.read_u64({DATA:#x}) == 2")
    made.until("n[0] >= 2")
    made.bench.run(5)
    count, first, second = made.words(3)
    assert count == 2
    assert first == second
    assert made.eval("n[0]") >= 2
    assert made.eval("vcpu.read(GUEST_INTERRUPTIBILITY_STATE)") & 8 == 0


SELF_IPI = "mov dword ptr [rsi + 0x300], {:#x}\n"


def test_an_emulated_eoi_ends_the_interrupt(guest):
    """A read-modify-write of EOI is not virtualized; an interrupt of lower priority must come after it."""
    source = f"""
        mov rsi, 0xfee00000
        mov dword ptr [rsi + 0xf0], 0x1ff
        sti
        {SELF_IPI.format(0x40050)}
        {SELF_IPI.format(0x40040)}
        mov ecx, 1000
        again:
        dec ecx
        jnz again
        cli
        mov eax, [rsi + 0xa0]
        mov [{DATA + 16:#x}], rax
        hlt
    """
    handlers = {
        0x50: f"inc qword ptr [{DATA:#x}]\nand dword ptr [rsi + 0xb0], 0\niretq",
        0x40: f"inc qword ptr [{DATA + 8:#x}]\nand dword ptr [rsi + 0xb0], 0\niretq",
    }
    made = guest(source, handlers=handlers)
    made.halted()
    assert made.words(3) == (1, 1, 0)
    assert CODE <= made.eval("vcpu.rip")


LATER = f"""
    inc qword ptr [{DATA + 16:#x}]
    mov rax, [{DATA + 8:#x}]
    add [{DATA + 24:#x}], rax
    mov dword ptr [rsi + 0xb0], 0
    iretq
"""
SPINS = f"""
    mov qword ptr [{DATA + 8:#x}], 1
    mov ecx, 200000
    spins: dec ecx
    jnz spins
    mov qword ptr [{DATA + 8:#x}], 0
"""


@pytest.mark.parametrize("first", ["interrupt", "exception"])
def test_a_host_interrupt_brings_no_interrupt_that_the_guest_holds_off(guest, first):
    """One more waits; the first one's handler spins with interrupts off while host interrupts come."""
    both = SELF_IPI.format(0x40050) + SELF_IPI.format(0x40040)
    source = f"""
        mov rsi, 0xfee00000
        mov dword ptr [rsi + 0xf0], 0x1ff
        again:
        cli
        {both if first == "interrupt" else ""}
        xor eax, eax
        cpuid
        sti
        nop
        mov eax, 0x777
        cpuid
        inc qword ptr [{DATA:#x}]
        jmp again
    """
    handlers = {
        6: f"{SPINS}\nadd qword ptr [rsp], 2\niretq",
        0x40: LATER,
        0x50: f"mov dword ptr [rsi + 0xb0], 0\n{SPINS}\niretq",
    }
    made = guest(source, handlers=handlers)
    if first == "exception":
        made.policy("CPUID, leaf=0x777", "vm.pc.lapic.receive(0x40, 0)\nreturn Inject(6)")
    made.until(f"vm.memory.read_u64({DATA:#x}) >= 20", 2000)
    rounds, _, taken, nested = made.words(4)
    assert rounds <= taken <= rounds + 1
    assert nested == 0
