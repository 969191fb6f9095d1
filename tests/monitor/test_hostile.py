"""Guests that do their worst, beside one of higher priority with a timer: that one stays in time, nobody else's memory
changes, and the prompt lives."""

import metronome
import pytest
from bench import DATA, IDTR, MEMORY, STACK

BOUND = 50_000  # ticks from a deadline to its handler
MS = 300
# A neighbour that never runs is filled from its first byte to its last; of the one that runs, all counts but its stack
# and the words that it stores.
FILL = f"""
pattern = bytes(range(256)) * 256
for at in range(0, {MEMORY:#x}, len(pattern)):
    vm.memory.write(at, pattern)
"""
FILLED = f"all(vm.memory.view(at, len(pattern)) == pattern for at in range(0, {MEMORY:#x}, len(pattern)))"
CRC = f"[__import__('binascii').crc32(vm.memory.view(*part)) for part in ((0, 0x130000), ({IDTR:#x}, 0x10000))]"

# What is slow for the monitor: ports, memory and hypercalls that nobody has, CPUID, control registers.
STORM = """
again:
    mov eax, 0x3000
    cpuid
    mov dx, 0x1234
    in al, dx
    out 0x80, al
    mov eax, 0x999
    vmcall
    mov rsi, 0xd0000000
    mov eax, [rsi]
    add [rsi + 8], eax
    mov rsi, 0xfec00000
    mov dword ptr [rsi], 0x10
    mov eax, [rsi + 0x10]
    mov rax, cr4
    mov cr4, rax
    mov ecx, 0x1234
    rdmsr
    jmp again
"""
PIC = """
mov al, 0x11; out 0x20, al
mov al, 0x20; out 0x21, al
mov al, 4; out 0x21, al
mov al, 1; out 0x21, al
mov al, 0xDF; out 0x21, al
"""
SKIP = "add rsp, 8\nadd qword ptr [rsp], 2\niretq"  # RDMSR and WRMSR have two bytes

# Memory from 0 to 4 GiB, ports, MSRs, and the pages where devices are, each by turns; xorshift.
RANDOM = f"""
    rdtsc
    mov r8, rax
    or r8, 1
next:
    mov rsp, {STACK:#x}
    mov rax, r8
    shl rax, 13
    xor r8, rax
    mov rax, r8
    shr rax, 7
    xor r8, rax
    mov rax, r8
    shl rax, 17
    xor r8, rax
    mov eax, r8d
    mov [rax], r8
    mov rdx, r8
    shr rdx, 32
    mov eax, r8d
    cmp dx, 0x604
    je next
    out dx, eax
    mov ecx, edx
    and ecx, 0xfff
    wrmsr
    or ecx, 0xc0000000
    wrmsr
    mov eax, r8d
    and eax, 0xff8
    mov rsi, 0xfec00000
    mov [rsi + rax], r8d
    mov rsi, 0xfee00000
    mov [rsi + rax], r8d
    jmp next
"""
HOSTILE = {
    "spins with interrupts off": ("cli\nagain: jmp again", {}),
    "storms the monitor with exits": (STORM, {"handlers": {13: SKIP}}),
    "triple faults in a loop": ("ud2", {"memory": 32 << 20, "on_triple_fault": "reset"}),
    "writes at random": (RANDOM, {"handlers": {13: SKIP}, "on_triple_fault": "reset", "on_reset": "reset"}),
}


@pytest.fixture
def ticking(guest):
    return metronome.start(guest)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_guest(bench, guest, ticking, name):
    source, options = HOSTILE[name]
    neighbour = guest("hlt")
    neighbour.exec(FILL)
    hostile = guest(source, **options)
    crc = ticking.eval(CRC)
    hostile.go()
    bench.run(50)
    ran = hostile.eval("vm.vcpu.guest_ticks")
    ticks = ticking.word(metronome.COUNT)
    latest = metronome.latest(ticking, MS)
    print(name, latest)
    assert ticking.word(metronome.COUNT) - ticks >= MS
    assert latest <= BOUND
    assert metronome.least(ticking) == 0
    held, ticks, state = hostile.eval(
        "(vm.backoff.held or vm.backoff._soon > 0, vm.vcpu.guest_ticks, vm.state)"  # it resets itself again and again
    )
    assert held or ticks > ran
    assert held or state == "running"
    assert neighbour.eval(FILLED)
    assert ticking.eval(CRC) == crc
    assert bench.alive()


BOARD = [{"name": "board", "size": 0x1000, "gsi": 5}]
RINGS = "again: mov eax, 0x100; xor ebx, ebx; vmcall; inc qword ptr [{at:#x}]; jmp again"
ANSWERS = f"""
    push rax; push rbx
    mov eax, 0x101; xor ebx, ebx; vmcall
    inc qword ptr [{DATA:#x}]
    mov al, 0x20; out 0x20, al
    pop rbx; pop rax; iretq
"""


def test_a_doorbell_storm(bench, guest, ticking):
    """Who is rung all the time goes before who rings, and the third before both."""
    rung = guest(f"{PIC}sti; idle: hlt; jmp idle", handlers={0x25: ANSWERS}, shared=BOARD, priority=5)
    rung.halted()
    ringing = guest(RINGS.format(at=DATA), shared=BOARD)
    ringing.go()
    bench.run(50)
    before = ringing.word(), rung.word(), ticking.word(metronome.COUNT)
    latest = metronome.latest(ticking, MS)
    after = ringing.word(), rung.word(), ticking.word(metronome.COUNT)
    print("doorbells", latest, before, after)
    assert latest <= BOUND
    assert metronome.least(ticking) == 0
    assert after[2] - before[2] >= MS
    assert after[1] > before[1] and after[0] > before[0]


# COM1 by interrupts through the I/O APIC, 16 characters at a time.
PRINTS = """
mov rsi, 0xfee00000
mov dword ptr [rsi + 0xf0], 0x1ff
mov rdi, 0xfec00000
mov dword ptr [rdi], 0x19
mov dword ptr [rdi + 0x10], 0
mov dword ptr [rdi], 0x18
mov dword ptr [rdi + 0x10], 0x40
mov dx, 0x3fa; mov al, 7; out dx, al
mov dx, 0x3fc; mov al, 11; out dx, al
sti
mov dx, 0x3f9; mov al, 2; out dx, al
idle: hlt; jmp idle
"""
SENDS = f"""
    push rax; push rcx; push rdx
    mov dx, 0x3fa; in al, dx
    mov dx, 0x3f8; mov ecx, 16; mov al, 0x2e
    more: out dx, al
    dec ecx; jnz more
    add qword ptr [{DATA:#x}], 16
    mov dword ptr [rsi + 0xb0], 0
    pop rdx; pop rcx; pop rax; iretq
"""


def test_a_guest_that_prints_without_end(bench, guest, ticking):
    """Faster than its console takes it: the monitor moves what waits whenever there is room."""
    prints = guest(PRINTS, handlers={0x40: SENDS}, console="com2")
    prints.go()
    bench.run(100)
    before = prints.word(), ticking.word(metronome.COUNT)
    latest = metronome.latest(ticking, MS)
    after = prints.word(), ticking.word(metronome.COUNT)
    print("prints", latest, before, after)
    assert latest <= 40_000
    assert metronome.least(ticking) == 0
    assert after[1] - before[1] >= MS
    assert after[0] - before[0] > 1000
    assert prints.eval("vm.console.written") >= after[0] - 100
