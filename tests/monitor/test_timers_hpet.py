"""The HPET by a guest: through the I/O APIC, and in the place of the 8254."""

from bench import DATA, deadline_timer

LEVEL_VECTOR = 0x50
TICK_VECTOR = 0x51
EOI = "mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; iretq"

HPET = f"""
    {deadline_timer(0x60)}
    mov rdi, 0xfec00000
    mov dword ptr [rdi], {0x10 + 2 * 20}
    mov dword ptr [rdi + 0x10], {0x8000 | LEVEL_VECTOR:#x}
    mov dword ptr [rdi], {0x10 + 2 * 2}
    mov dword ptr [rdi + 0x10], {TICK_VECTOR:#x}
    mov rbx, 0xfed00000
    mov rsi, {DATA:#x}
    mov rax, [rbx]
    mov [rsi + 0x18], rax
    mov dword ptr [rbx + 0x100], {20 << 9 | 6:#x}
    mov dword ptr [rbx + 0x10], 1
    mov rax, [rbx + 0xf0]
    add rax, 10000
    mov [rbx + 0x108], rax
    mov rax, [rbx + 0xf0]
    sti
first:
    hlt
    cmp qword ptr [rsi], 1
    jb first
    mov al, 0x34
    out 0x43, al
    mov ax, 1193
    out 0x40, al
    mov al, ah
    out 0x40, al
waits:
    hlt
    cmp qword ptr [rsi + 8], 3
    jb waits
    mov dword ptr [rbx + 0x100], 0x14c
    mov eax, [rbx + 0xf0]
    mov r8d, eax
    add eax, 50000
    mov [rbx + 0x108], eax
    mov dword ptr [rbx + 0x108], 50000
    mov dword ptr [rbx + 0x10], 3
    mov qword ptr [rsi + 8], 0
ticks:
    hlt
    cmp qword ptr [rsi + 8], 10
    jb ticks
    mov eax, [rbx + 0xf0]
    sub eax, r8d
    mov [rsi + 0x10], rax
    mov dword ptr [rbx + 0x10], 1
    mov qword ptr [rsi + 8], 0
again:
    hlt
    cmp qword ptr [rsi + 8], 3
    jb again
    cli
    hlt
"""


def test_level_triggered_and_in_the_place_of_the_8254(guest):
    """It runs into its HLT with interrupts off only if the 8254 ticks before, not meanwhile, and again afterwards."""
    handlers = {
        LEVEL_VECTOR: "inc qword ptr [rsi]; mov dword ptr [rbx + 0x20], 1;" + EOI,
        TICK_VECTOR: "inc qword ptr [rsi + 8];" + EOI,
    }
    g = guest(HPET, handlers=handlers)
    timers = g.eval("len(vm.clock.callbacks)")
    g.until("vm.state == 'halted' and not vcpu.rflags >> 9 & 1", 20000)
    level, ticks, elapsed, capabilities = g.words(4)
    assert (level, ticks) == (1, 3)
    assert capabilities == 100000000 << 32 | 0x8086A201
    assert elapsed >= 500000  # ten periods of 5 ms; ten of the 8254 would be over in 10 ms
    assert g.eval("len(vm.clock.callbacks)") == timers + 1
    g.exec("vm.reset(); vm.pause()")
    assert g.eval("[vm.mmio_bus.read(0xFED00000 + at, 8) for at in (0x10, 0x108)]") == [0, (1 << 64) - 1]
